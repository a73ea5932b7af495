#!/usr/bin/env bash
# Ensure that a Docker Engine and the base image are available, for the tests that need them; does nothing if they are.
# With --install, on Debian and as root, it installs the engine (and Docker Compose), and starts it if there is no
# systemd. If no registry is reachable, it makes a base image from Debian's own packages.
# Exits with 1 and one line that says what is missing if it does not succeed.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
INSTALL=no
[ "${1:-}" = --install ] && INSTALL=yes
LOG=${DOCKERD_LOG:-/var/log/dockerd.log}

say() { echo "ensure-engine: $*" >&2; }
missing() { say "$*"; exit 1; }
answers() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }
apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >/tmp/ensure-engine.apt 2>&1; }

mount_control_groups() { # if they are not mounted, as in a container
    [ -e /sys/fs/cgroup/cgroup.controllers ] || mountpoint -q /sys/fs/cgroup/memory && return
    mountpoint -q /sys/fs/cgroup || mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    local controller place
    for controller in $(awk '!/^#/ && $4 == 1 {print $1}' /proc/cgroups); do
        place=/sys/fs/cgroup/$controller
        mkdir -p "$place"
        mountpoint -q "$place" || mount -t cgroup -o "$controller" cgroup "$place" || rmdir "$place"
    done
}

start_engine() { # start_engine ARGUMENT...: start dockerd and succeed when it answers; its log is $LOG
    rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
    : >"$LOG"
    setsid dockerd "$@" >>"$LOG" 2>&1 </dev/null &
    local process=$! tries
    for ((tries = 0; tries < 300; tries++)); do
        answers && return
        kill -0 "$process" 2>/dev/null || return 1
        sleep 0.2
    done
    kill "$process" 2>/dev/null || true
    return 1
}

ensure_engine() {
    answers && return
    [ "$INSTALL" = yes ] || missing "no Docker Engine answers; start one, or use --install"
    [ "$(id -u)" = 0 ] || missing "no Docker Engine answers; only root can install and start one"
    # An engine may be starting or stopping; a zombie process does not count.
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        pgrep -x -r R,S,D dockerd >/dev/null || break
        answers && return
        sleep 0.2
    done
    pgrep -x -r R,S,D dockerd >/dev/null && missing "dockerd runs, but does not answer"
    if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null; then
        command -v apt-get >/dev/null || missing "no Docker Engine is installed, and there is no apt to install it"
        { apt update && apt install -y --no-install-recommends docker.io iptables; } ||
            missing "the Docker Engine cannot be installed: $(tail -1 /tmp/ensure-engine.apt)"
    fi
    if [ -d /run/systemd/system ]; then
        systemctl start docker && answers && return
    fi
    mount_control_groups
    # Frames larger than the MTU of the network behind it would be lost silently.
    local device mtu
    device=$(ip route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -1)
    mtu=$(cat "/sys/class/net/$device/mtu" 2>/dev/null || echo 1500)
    start_engine --mtu="$mtu" && return
    if grep -qi iptables "$LOG" && [ -x /usr/sbin/iptables-legacy ]; then
        update-alternatives --set iptables /usr/sbin/iptables-legacy >/dev/null
        start_engine --mtu="$mtu" && return
    fi
    start_engine --mtu="$mtu" --storage-driver=vfs || missing "dockerd does not start: $(tail -1 "$LOG")"
}

make_base() { # make_base IMAGE: Debian 12 with its own Python 3.11, without a registry
    [ "$INSTALL" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    command -v mmdebstrap >/dev/null || { apt update && apt install -y --no-install-recommends mmdebstrap; } || return 1
    local place=/var/tmp certificates=/etc/ssl/certs/ca-certificates.crt
    # In memory this takes half the time.
    [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 1500000 ] 2>/dev/null && place=/dev/shm
    # pip uses the certificates of this machine, and `python` is Python 3.
    # shellcheck disable=SC2016
    TMPDIR=$place mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,ca-certificates \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Languages "none"' \
        --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
        --customize-hook="[ ! -s $certificates ] || cp $certificates \"\$1$certificates\"" \
        --customize-hook="echo '[global]' >\"\$1/etc/pip.conf\" && echo 'cert = $certificates' >>\"\$1/etc/pip.conf\"" \
        bookworm - | docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV LANG=C.UTF-8' - "$1" >/dev/null
}

ensure_base() {
    local image
    image=$(sed -n 's/^ARG BASE=//p' deploy/Dockerfile)
    docker image inspect "$image" >/dev/null 2>&1 || timeout 300 docker pull -q "$image" >/dev/null 2>&1 ||
        make_base "$image" || missing "the image $image is not here and can be neither pulled nor made"
}

ensure_compose() { # only one test needs it
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null && return
    [ "$INSTALL" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    { apt update && apt install -y --no-install-recommends docker-compose; } ||
        say "Docker Compose cannot be installed: $(tail -1 /tmp/ensure-engine.apt)"
}

ensure_engine
ensure_base
ensure_compose
say "Docker Engine $(docker info --format '{{.ServerVersion}}, {{.Driver}}'), and the base image"
