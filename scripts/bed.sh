# The bed of the measurements, for scripts that source this: two network namespaces, a veth between
# them, the server on one core and the generator on the next. Needs root. Ends with the script.
NAMES=${NAMES:-1000000}
SERVER_CORE=${SERVER_CORE:-0}
CLIENT_CORE=${CLIENT_CORE:-1}
WORK=$(mktemp -d)
SERVER_NS=ring53-s$$
CLIENT_NS=ring53-c$$
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
    ip netns del "$SERVER_NS" 2>/dev/null || true
    ip netns del "$CLIENT_NS" 2>/dev/null || true
    rm -rf "$WORK"
}
trap clean EXIT

in_server() { ip netns exec "$SERVER_NS" "$@"; }
in_client() { ip netns exec "$CLIENT_NS" "$@"; }

# bed [ADDRESS...]: the server has these addresses beside 10.53.0.1.
bed() {
    ip netns add "$SERVER_NS"
    ip netns add "$CLIENT_NS"
    ip link add r53s netns "$SERVER_NS" address 02:53:00:00:00:01 type veth \
        peer name r53c netns "$CLIENT_NS" address 02:53:00:00:00:02
    ip -n "$SERVER_NS" addr add 10.53.0.1/24 dev r53s
    ip -n "$CLIENT_NS" addr add 10.53.0.2/24 dev r53c
    for ns in "$SERVER_NS" "$CLIENT_NS"; do ip -n "$ns" link set lo up; done
    ip -n "$SERVER_NS" link set r53s up
    ip -n "$CLIENT_NS" link set r53c up
    ip -n "$SERVER_NS" neigh add 10.53.0.2 lladdr 02:53:00:00:00:02 dev r53s nud permanent
    ip -n "$CLIENT_NS" neigh add 10.53.0.1 lladdr 02:53:00:00:00:01 dev r53c nud permanent
    local address
    for address in "$@"; do
        ip -n "$SERVER_NS" addr add "$address/24" dev r53s
        ip -n "$CLIENT_NS" neigh add "$address" lladdr 02:53:00:00:00:01 dev r53c nud permanent
    done
    # Receive work belongs on the receiver's core: a veth would do it on the sender's.
    printf '%x' $((1 << SERVER_CORE)) \
        | in_server tee /sys/class/net/r53s/queues/rx-0/rps_cpus >/dev/null
    printf '%x' $((1 << CLIENT_CORE)) \
        | in_client tee /sys/class/net/r53c/queues/rx-0/rps_cpus >/dev/null
    # The generator's AF_XDP socket takes frames before RPS: its polling gets a thread of its own.
    # With a queue the veth holds back what its ring of 256 has no room for; without, it drops it.
    tc -n "$SERVER_NS" qdisc add dev r53s root pfifo limit 10000
    in_client ethtool -K r53c gro on
    in_client sh -c 'echo 1 >/sys/class/net/r53c/threaded'
    # As a real NIC would: it is polled every 50 us, so that no reply costs the server's core an
    # interrupt of the generator's.
    in_client sh -c 'echo 100 >/sys/class/net/r53c/napi_defer_hard_irqs'
    in_client sh -c 'echo 50000 >/sys/class/net/r53c/gro_flush_timeout'
    pin_polling
}

# The kernel makes the polling thread anew whenever a generator attaches.
pin_polling() {
    local thread
    for thread in $(pgrep '^napi/r53c'); do taskset -pc "$CLIENT_CORE" "$thread" >/dev/null; done
    for thread in $(pgrep '^napi/r53s'); do taskset -pc "$SERVER_CORE" "$thread" >/dev/null; done
    # Before the generator on the same core: else its veth's ring of 256 overflows while it waits.
    for thread in $(pgrep '^napi/r53'); do chrt -f -p 50 "$thread" 2>/dev/null || true; done
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
