"""The system base: Thespian's actors on an asyncio event loop.

An actor handles one message at a time; within a node, messages from one actor to another arrive in the order in which
they were sent; a message to an actor that has ended becomes a dead letter, which is counted. Actors run on the loop's
thread, except those that ask for a thread of their own. Supervision is Thespian's (see ``actor_cell``).

Imports go one way. At the bottom are ``addresses`` and ``message_loop``; the ``router`` finds receivers; ``host`` says
what an actor may ask of its system; the cells and the ``guardian`` use the host; ``base`` implements it; ``eventloop``
is the entrance. Other nodes are reached through the ``Transport`` protocol of ``router``.
"""
