"""All bytes on disk: the journal (term, vote and log) and the data directory that holds it.

**Guarantee.** A record is durable when ``Wal.append`` returns. Every later start either finds it or refuses to go on,
except after the two losses named below. The disk must keep what it has synced and write a sector whole or not at all.

**Group commit.** Syncing takes most of the time, so the records that wait while the disk is busy are folded into one
(``replay``) and written as one *batch*: one write, one sync (DeWitt et al., *Implementation Techniques for Main Memory
Database Systems*, 1984). The next batch is written only when the sync has returned, so only the last batch on disk can
be unacknowledged.

**Segments** are files full of zeros, allocated and synced before they are used (``spare_segment``). Writing a batch
then changes no file size and no block map, and ``fdatasync`` has only the batch itself to write. A batch covers whole
sectors, and each of its sectors begins with a mark (``format``): a sector of zeros was never written.

**Chained checksums.** Each batch has a CRC32C of its header and of its body and repeats the header CRC of the batch
before, across segments. A batch that is whole but belongs to another history does not fit the chain.

**Torn or damaged** (``recovery``). A crash in the middle of a write leaves the last batch with sectors missing: it is
*torn*, was never acknowledged, and is cut off. Anything else that does not fit is *damage*: acknowledged records may be
gone, and the node does not start. Two losses cannot be detected, because nothing refers to what was written last:
the last segments as a whole, and the last batch if any of its sectors reads as zeros, since it then looks torn.

``docs/journal.md`` specifies the format and lists what happens on each fault.
"""
