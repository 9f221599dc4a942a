# What happens on a worker's host. It is read from stdin: sh -s -- COMMAND ARGUMENT...
# Everything of ours is below one folder: env/ (what pip installed), app/ (our code), runs/.
set -eu
umask 077
prefix=${RELAY_LOAD_HOME:-$HOME/.relay-load}
starts_at_most=5
# What must be free, in MiB: packages take 410 and a Chromium some 400; an agent's spool needs room.
room_first_mb=1200
room_again_mb=200

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

has_systemd() {
    [ -d /run/systemd/system ] && command -v systemctl >/dev/null && as_root true 2>/dev/null
}

# supported : fail on a system that agents do not run on. One that is made from Debian or Ubuntu,
# or that has no version because it rolls, may be tried.
supported() {
    [ "$(uname -s)" = Linux ] || fail "this system is $(uname -s); workers run on Linux"
    case $(uname -m) in
    x86_64 | aarch64 | arm64) ;;
    *) fail "this processor is $(uname -m); workers run on x86_64 or aarch64" ;;
    esac
    ID='' ID_LIKE='' VERSION_ID='' PRETTY_NAME=''
    [ ! -r /etc/os-release ] || . /etc/os-release
    case "$ID $ID_LIKE" in
    debian*) oldest=12 ;;
    ubuntu*) oldest=24 ;;
    *debian* | *ubuntu*) oldest=0 ;;
    *) oldest=none ;;
    esac
    version=${VERSION_ID%%.*}
    [ "$oldest" != none ] && [ "${version:-$oldest}" -ge "$oldest" ] ||
        fail "this system is ${PRETTY_NAME:-unknown}; workers run on Debian 12, Ubuntu 24.04 and newer"
}

# has_room MIB : fail unless so much is free where our folder is, or will be.
has_room() {
    at=$prefix
    while [ ! -d "$at" ]; do at=$(dirname "$at"); done
    free_mb=$(df -Pm "$at" | awk 'NR == 2 { print $4 }')
    [ "$free_mb" -ge "$1" ] ||
        fail "the disk is full: $free_mb MiB are free at $prefix, and $1 MiB are needed"
}

# describe : print what this host is, or fail if agents cannot run on it; nothing is made.
describe() {
    supported
    has_room "$room_again_mb"
    printf '%s, %s, %s MiB free\n' "$PRETTY_NAME" "$(uname -m)" "$free_mb"
}

# look ENV APP : where our folder is, and what of the two is there already.
look() {
    supported
    mkdir -p "$prefix/env" "$prefix/app" "$prefix/runs" "$prefix/incoming"
    printf 'prefix=%s\n' "$prefix"
    if [ -e "$prefix/env/$1/complete" ]; then
        has_room "$room_again_mb"
        printf 'environment=yes\n'
    else
        has_room "$room_first_mb"
    fi
    [ ! -e "$prefix/app/$2/complete" ] || printf 'application=yes\n'
}

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Images often have python3 without the part that makes environments.
get_python() {
    find_python && return
    command -v apt-get >/dev/null ||
        fail "there is no Python 3.11 or newer with venv here, and no apt-get to install one" \
            "(Debian 12, Ubuntu 24.04 and newer are supported)"
    {
        as_root apt-get -qq -o DPkg::Lock::Timeout=300 update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
                install --yes --no-install-recommends python3 python3-venv
    } >&2 || fail "python3-venv could not be installed"
    find_python || fail "the Python of this system is older than 3.11"
}

# prepare ENV APP INCOMING offline|online : install what is missing.
prepare() {
    env=$prefix/env/$1 app=$prefix/app/$2 incoming=$3 mode=$4
    # Two runs may prepare one host at the same time.
    exec 9>"$prefix/lock"
    flock 9
    unset PYTHONPATH PYTHONHOME
    if [ ! -e "$env/complete" ]; then
        rm -rf "$env"
        python=$(get_python) || exit 1
        "$python" -m venv "$env"
        set -- --no-input --disable-pip-version-check install --quiet
        why="does this host reach its package index? If not, deploy to it with --wheelhouse DIR"
        if [ "$mode" = offline ]; then
            set -- "$@" --no-index --find-links "$incoming"
            why="does the wheelhouse fit this host's Python and processor?"
        fi
        if ! {
            "$env/bin/python" -m pip "$@" --only-binary :all: --require-hashes \
                -r "$incoming/worker.txt" &&
                { [ ! -s "$incoming/extra.txt" ] ||
                    "$env/bin/python" -m pip "$@" -r "$incoming/extra.txt"; }
        }; then
            rm -rf "$env" "$incoming"
            fail "the agent's packages could not be installed: $why"
        fi
        : >"$env/complete"
    fi
    if [ ! -e "$app/complete" ]; then
        rm -rf "$app"
        "$env/bin/python" -m pip --no-input --disable-pip-version-check install --quiet \
            --no-deps --no-index --no-compile --target "$app" "$incoming"/relay_load-*.whl
        : >"$app/complete"
    fi
    rm -rf "$incoming"
}

# chromium ENV APP offline|online : print the path of a Chromium that runs, after getting one.
chromium() {
    export PYTHONPATH="$prefix/app/$2"
    python=$prefix/env/$1/bin/python
    exec 9>"$prefix/lock"
    flock 9
    "$python" -m worker_agent.chromium find 2>/dev/null && return
    [ "$3" = online ] || fail "there is no Chromium on this host, and it is deployed to" \
        "without internet: put chromium-headless-shell on its image"
    "$python" -m worker_agent.chromium install
}

unit_of() {
    printf 'relay-load-%s' "$(printf '%s' "$1" | cksum | cut -d' ' -f1)"
}

# unit FOLDER ENV APP : print the systemd unit of an agent.
unit() {
    cat <<UNIT
[Unit]
Description=Load agent in $1
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=$starts_at_most

[Service]
User=$(id -un)
WorkingDirectory=$1
Environment=HOME=$HOME
Environment=PYTHONPATH=$prefix/app/$3
EnvironmentFile=-$1/agent.env
ExecStart=$prefix/env/$2/bin/python -m worker_agent --config $1/agent.json
StandardOutput=append:$1/agent.log
StandardError=append:$1/agent.log
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=2 130
TimeoutStopSec=90
KillMode=mixed
UNIT
}

# supervisor FOLDER ENV APP : print the script that stands in for systemd.
supervisor() {
    cat <<SCRIPT
cd "$1"
export PYTHONPATH="$prefix/app/$3"
if [ -e agent.env ]; then set -a; . ./agent.env; set +a; fi
agent=
trap 'touch ending; [ -z "\$agent" ] || kill -TERM "\$agent"' TERM
starts=0
while [ "\$starts" -lt $starts_at_most ] && [ ! -e ending ]; do
    starts=\$((starts + 1))
    "$prefix/env/$2/bin/python" -m worker_agent --config "$1/agent.json" >>agent.log 2>&1 &
    agent=\$!
    echo "\$agent" >agent.pid
    code=0
    wait "\$agent" || code=\$?
    # A signal interrupts wait, though the agent still runs.
    while kill -0 "\$agent" 2>/dev/null; do
        code=0
        wait "\$agent" || code=\$?
    done
    case \$code in 0 | 2 | 130) break ;; esac
    sleep 1
done
SCRIPT
}

# start FOLDER ENV APP : have the agent of this folder running; nothing changes if it is.
start() {
    ! running "$1" || return 0
    rm -f "$1/ending"
    if has_systemd; then
        name=$(unit_of "$1")
        unit "$@" | as_root tee "/run/systemd/system/$name.service" >/dev/null
        as_root systemctl daemon-reload
        as_root systemctl reset-failed "$name" 2>/dev/null || true
        as_root systemctl start "$name"
    else
        supervisor "$@" >"$1/supervisor.sh"
        # Our own descriptors must not stay open in it, or this login would never end.
        setsid sh "$1/supervisor.sh" </dev/null >>"$1/agent.log" 2>&1 9>&- &
        echo $! >"$1/supervisor.pid"
    fi
}

# The supervisor's pid if it is alive; pids are used again, so its command line is compared.
supervisor_pid() {
    pid=$(cat "$1/supervisor.pid" 2>/dev/null) || return 1
    [ -r "/proc/$pid/cmdline" ] && grep -qF "$1/supervisor.sh" "/proc/$pid/cmdline" || return 1
    echo "$pid"
}

running() {
    if [ -e "/run/systemd/system/$(unit_of "$1").service" ]; then
        case $(systemctl is-active "$(unit_of "$1")") in
        active | activating | reloading | deactivating) return 0 ;;
        *) return 1 ;;
        esac
    fi
    supervisor_pid "$1" >/dev/null
}

state() { if running "$1"; then echo running; else echo gone; fi; }

# stop FOLDER SECONDS : end the agent, by force when the seconds are over.
stop() {
    name=$(unit_of "$1")
    if [ -e "/run/systemd/system/$name.service" ]; then
        as_root systemctl stop "$name" || true
        as_root rm -f "/run/systemd/system/$name.service"
        as_root systemctl daemon-reload
    fi
    pid=$(supervisor_pid "$1") || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    tenths=$(($2 * 10))
    while supervisor_pid "$1" >/dev/null; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || break
        sleep 0.1
    done
    # It led a session and a process group of its own.
    kill -KILL -- "-$pid" 2>/dev/null || true
}

# stop_run RUN SECONDS : end every agent of a run; print the folders whose spool is not empty.
stop_run() {
    for config in "$prefix/runs/$1"/attempt-*/*/agent.json; do
        [ -e "$config" ] || continue
        (stop "$(dirname "$config")" "$2")&
    done
    wait
    for config in "$prefix/runs/$1"/attempt-*/*/agent.json; do
        [ -e "$config" ] || continue
        folder=$(dirname "$config")
        left=$(find "$folder/spool" -type f -size +0 \
            \( -path '*/ready/*' -o -path '*/journal/*' \) 2>/dev/null | head -n 1)
        [ -z "$left" ] || printf '%s\n' "$folder"
    done
}

# remove RUN keep|all : take away what the run put here; the environments too unless in use.
remove() {
    rm -rf "${prefix:?}/runs/${1:?}"
    if [ "$2" = keep ] || [ ! -d "$prefix" ]; then return; fi
    exec 9>"$prefix/lock"
    flock 9
    if [ -z "$(ls -A "$prefix/runs" 2>/dev/null)" ]; then
        rm -rf "${prefix:?}/env" "$prefix/app" "$prefix/incoming" "$prefix/runs" "$prefix/lock"
        rmdir "$prefix" 2>/dev/null || true
    fi
}

# folder RUN ATTEMPT WORKER : make the agent's folder and print it.
folder() {
    made=$prefix/runs/$1/attempt-$2/$3
    mkdir -p "$made"
    printf '%s\n' "$made"
}

# unpack FOLDER : unpack the user's journey that was copied there.
unpack() {
    rm -rf "$1/journey"
    mkdir -p "$1/journey"
    tar -C "$1/journey" -xf "$1/journey.tar"
    rm -f "$1/journey.tar"
}

# incoming NAME : make an empty folder for a copy, and print it.
incoming() {
    made=$prefix/incoming/$1
    rm -rf "$made"
    mkdir -p "$made"
    printf '%s\n' "$made"
}

# log FOLDER : the end of the agent's log.
log() { tail -n 12 "$1/agent.log" 2>/dev/null || true; }

command=$1
shift
"$command" "$@" </dev/null
