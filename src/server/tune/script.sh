#!/bin/sh
# Made by `ring53 tune script` on one machine, for it, from what it read there.
#
#   apply   sets what was not as advised, unless it is so by now; keeps the old values
#   undo    sets back what any such script set here, in the opposite order
#   show    prints the values of now
#
# Old values are kept in a file below /run: like what is set, it is gone when the machine starts
# again. What fails is said, the rest is done, and the exit status is 1.
set -u
umask 077
mode=${1:-}
failed=0
tab=$(printf '\t')
state=${RING53_TUNE_STATE:-/run/ring53-tune-$(readlink /proc/self/ns/net | tr -cd 0-9)}

fail() {
    echo "$1" >&2
    failed=1
}

# affinity ACTION: the file with the cores of the interrupt of that name
affinity() {
    found=
    while read -r number rest; do
        case " $rest" in
            *" $1")
                [ -z "$found" ] || return 1
                found=${number%:}
                ;;
        esac
    done </proc/interrupts
    [ -n "$found" ] && echo "/proc/irq/$found/smp_affinity_list"
}

# value KIND SUBJECT READ: the value of now in one line; of words to choose from, the chosen one
value() {
    case $1 in
        file) cat "$2" ;;
        interrupt) path=$(affinity "$2") && cat "$path" ;;
        command) sh -c "$3" ;;
    esac 2>/dev/null | tr '\t\n' '  ' | sed 's/.*\[\(.*\)\].*/\1/; s/ *$//'
}

# assign KIND SUBJECT VALUE SET
assign() {
    case $1 in
        file) printf '%s\n' "$3" 2>/dev/null >"$2" ;;
        interrupt) path=$(affinity "$2") && printf '%s\n' "$3" 2>/dev/null >"$path" ;;
        command) sh -c "$4" sh "$3" ;;
    esac
}

# keep KIND SUBJECT [READ SET]: the value of now, unless an older one is kept
keep() {
    [ "$mode" = apply ] || return 0
    while IFS=$tab read -r kind subject rest; do
        [ "$kind $subject" = "$1 $2" ] && return 0
    done <"$state"
    old=$(value "$1" "$2" "${3:-}")
    if [ -z "$old" ]; then
        fail "$2: cannot be read (is it there?)"
        return 1
    fi
    if ! printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$old" "${3:-}" "${4:-}" >>"$state"; then
        fail "$state: cannot keep the old value of $2 there"
        return 1
    fi
}

# change KIND SUBJECT VALUE [READ SET WARNING]
change() {
    now=$(value "$1" "$2" "${4:-}")
    if [ "$mode" = show ]; then
        echo "$2 = ${now:-?}; wanted: $3"
        return
    fi
    [ "$now" = "$3" ] && return
    keep "$1" "$2" "${4:-}" "${5:-}" || return
    [ -z "${6:-}" ] || echo "$2: $now to $3; $6" >&2
    assign "$1" "$2" "$3" "${5:-}" || fail "$2: cannot be set to $3 (root? or the kernel refuses it)"
}

# If something cannot be set back, all of it is kept: queues that come back later need their masks.
undo() {
    if ! [ -s "$state" ]; then
        echo "$state has no old values: nothing to undo" >&2
        return
    fi
    sed '1!G; h; $!d' "$state" >"$state.undo" || { failed=1; return; }
    while IFS=$tab read -r kind subject old get set; do
        [ "$(value "$kind" "$subject" "$get" </dev/null)" = "$old" ] && continue
        assign "$kind" "$subject" "$old" "$set" </dev/null ||
            fail "$subject: cannot be set back to $old"
    done <"$state.undo"
    rm -f "$state.undo"
    if [ $failed = 0 ]; then
        rm -f "$state"
    else
        echo "$state is kept: mend that and undo again, or remove it" >&2
    fi
}
