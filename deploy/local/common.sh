# What the scripts here share. Sourced, not run.

fail() {
    echo "${0##*/local/}: $*" >&2
    exit 1
}

require_root() {
    [ "$(id -u)" = 0 ] || fail "the daemons run as root, this is $(id -un): run it with sudo"
}

# install_unless TEST PACKAGE...: the packages, unless the test succeeds. None is removed for them, and none of them
# starts a service of its own (RUNLEVEL=1).
install_unless() {
    bash -c "$1" >/dev/null 2>&1 && return
    command -v apt-get >/dev/null || fail "${*:2} are not installed, and there is no apt-get: Debian or Ubuntu is needed"
    export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
    local said
    said=$({ apt-get update -q && apt-get install -qy --no-install-recommends --no-remove "${@:2}"; } </dev/null 2>&1) ||
        fail "apt-get does not install ${*:2}:"$'\n'"$said"
}

# Whether something listens at a TCP port here, at whatever address.
port_is_taken() {
    grep -qiE ": [0-9A-F]+:$(printf %04X "$1") 0+:0000 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# require_ports VARIABLE PORT...
require_ports() {
    local port
    for port in "${@:2}"; do
        ! port_is_taken "$port" || fail "port $port is taken: choose others with $1=, the first of $(($# - 1)) in a row"
    done
}

# require_own ROOT FILE: a folder that is new, empty, or has the file that an earlier `up` put there.
require_own() {
    [ ! -e "$1" ] || [ -e "$1/$2" ] || [ -z "$(ls -A "$1")" ] || fail "$1 has files of others in it: name a new folder"
}

# within SECONDS COMMAND...: whether it succeeds in time, tried again and again.
within() {
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

is_gone() { ! grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null; } # Z: ended, and nobody reaps it

# end DAEMON PIDFILE: asked, then killed. A number that belongs to another program by now is left alone.
end() {
    local pid
    pid=$(cat "$2" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 0
    kill "$pid"
    within 10 is_gone "$pid" || kill -9 "$pid"
    within 5 is_gone "$pid" || fail "$1 ($pid) does not end"
}
