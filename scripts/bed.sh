# The bed of the measurements (bench/src/bed/namespaces.rs), for scripts that source this: two network
# namespaces, a veth between them, the server on one core and the generator on the next. Needs root.
# Ends with the script.
NAMES=${NAMES:-1000000}
SERVER_CORE=${SERVER_CORE:-0}
CLIENT_CORE=${CLIENT_CORE:-1}
WORK=$(mktemp -d)
SERVER_PID=
# The server's address; a script that compares several gives each its own.
ADDRESS=10.53.0.1
BENCH=target/release/ring53-bench
PATH=$PATH:/usr/sbin:/sbin

stop() {
    if [ -n "$SERVER_PID" ]; then
        kill "$SERVER_PID" 2>/dev/null || true
        wait "$SERVER_PID" 2>/dev/null || true
        SERVER_PID=
    fi
}
clean() {
    stop
    "$BENCH" bed down --owner $$ || true
    rm -rf "$WORK"
}
trap clean EXIT

in_server() { ip netns exec "$SERVER_NS" "$@"; }
in_client() { ip netns exec "$CLIENT_NS" "$@"; }

# bed [ADDRESS...]: the server has these addresses beside 10.53.0.1. Sets SERVER_NS and CLIENT_NS, and
# SERVER_END and CLIENT_END, the interfaces in them.
bed() {
    local names
    names=$("$BENCH" bed up --owner $$ --server-core "$SERVER_CORE" --client-core "$CLIENT_CORE" "$@")
    eval "$names"
    "$BENCH" bed awake --owner $$ --server-core "$SERVER_CORE" --client-core "$CLIENT_CORE" &
    SERVER_END=${SERVER_NS#r53-}
    CLIENT_END=${CLIENT_NS#r53-}
}

# The kernel makes the polling thread anew whenever a generator attaches.
pin_polling() {
    "$BENCH" bed pin --owner $$ --server-core "$SERVER_CORE" --client-core "$CLIENT_CORE"
}

# generate RATE SECONDS: what kxdpgun says of an open-loop load.
generate() {
    pin_polling
    in_client taskset -c "$CLIENT_CORE" kxdpgun -F "$CLIENT_CORE" -t "$2" -Q "$1" \
        -i "$WORK/queries" -p 53 -b 32 "$ADDRESS" 2>/dev/null
}

# load RATE SECONDS: replies a second.
load() { generate "$1" "$2" | sed -n 's/^total replies:.*(\([0-9]*\) pps).*/\1/p'; }

# wait_for_first: until the zone's last name is answered; sets LOAD_MS, from `began`.
wait_for_first() {
    for _ in $(seq 1000); do
        if in_client "$BENCH" first --server "$ADDRESS:53" --query "$LAST" 2>/dev/null; then
            LOAD_MS=$((($(date +%s%N) - began) / 1000000))
            return
        fi
        sleep 0.005
    done
    return 1
}

# family PID: the process and all that descend from it.
family() {
    local child
    echo "$1"
    for child in $(pgrep -P "$1"); do family "$child"; done
}

# Resident memory of the server and its children in MiB, what they share counted once.
memory() {
    local sum=0 kb
    for pid in $(family "$SERVER_PID"); do
        kb=$(sed -n 's/^Pss: *\([0-9]*\).*/\1/p' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0)
        sum=$((sum + ${kb:-0}))
    done
    echo $((sum / 1024))
}

# new_serial N: the zone again, with another serial, in the place of the old file.
new_serial() {
    sed "0,/hostmaster [0-9]*/s//hostmaster $1/" "$WORK/zone" >"$WORK/zone.new"
    mv "$WORK/zone.new" "$WORK/zone"
}
