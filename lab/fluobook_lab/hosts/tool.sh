#!/bin/sh
# Plays wg, wg-quick, ip, ping, systemctl and apt-get of the host whose folder is $HOST; the other hosts are beside it.
# run/NAME.conf is the running interface NAME, run/NAME.mtu its MTU, run/NAME.address its address.
set -eu
lab=${HOST%/*}
run=$HOST/run
mkdir -p "$run"

value() { sed -n "s/^$1 = //p" "$2"; }

# The public key of a private key; it takes a moment, so that each is kept.
public() {
  read -r key || :
  [ "${#key}" = 44 ] || { echo "wg: Key is not the correct length or format" >&2; return 1; }
  [ ! -e "$lab/keys" ] || while read -r private known; do
    [ "$private" != "$key" ] || { echo "$known"; return; }
  done <"$lab/keys"
  known=$(echo "$key" | "$lab/pubkey")
  echo "$key $known" >>"$lab/keys"
  echo "$known"
}

# A running interface as `wg show NAME dump` has it, and at the end of each peer's line the folder of the host at the
# other end: there is one if each knows the other's key and one reaches the other's endpoint.
dump() {
  own=$run/$1.conf
  set --
  for file in "$lab/keys" "$lab"/*/address "$lab"/*/run/*.conf; do
    [ ! -s "$file" ] || set -- "$@" "$file"
  done
  blocked=$(echo "$lab"/*/blocked)
  awk -v own="$own" -v now="$(date +%s)" -v blocked="$blocked " '
    function public(key, command) {
      if (!(key in publics)) {
        command = "echo " key " | \"$HOST/bin/wg\" pubkey 2>/dev/null"
        command | getline publics[key]
        close(command)
      }
      return publics[key]
    }
    function is_blocked(folder) { return index(blocked, folder "/blocked ") }
    function reaches(file, other) { return (file, address[home[other]] ":" port[other]) in endpoints }
    function is_partner(file, key) {
      return file != own && public(private[file]) == key && (file, public(private[own])) in known &&
        (reaches(own, file) || reaches(file, own)) && !is_blocked(home[file]) && !is_blocked(home[own])
    }
    FILENAME ~ "/keys$" { publics[$1] = $2; next }
    FILENAME ~ "/address$" { folder = FILENAME; sub("/address$", "", folder); address[folder] = $1; next }
    FNR == 1 { home[FILENAME] = FILENAME; sub("/run/[^/]*$", "", home[FILENAME]) }
    $1 == "PrivateKey" { private[FILENAME] = $3 }
    $1 == "ListenPort" { port[FILENAME] = $3 }
    $1 == "PublicKey" { known[FILENAME, $3]; peer = $3 }
    $1 == "Endpoint" { endpoints[FILENAME, $3] }
    FILENAME != own { next }
    $1 == "PublicKey" { peers[++number] = peer; endpoint[peer] = "(none)" }
    $1 == "Endpoint" { endpoint[peer] = $3 }
    $1 == "AllowedIPs" { $1 = $2 = ""; gsub(" ", ""); networks[peer] = $0 }
    END {
      OFS = "\t"
      print private[own], public(private[own]), port[own], "off"
      for (each = 1; each <= number; each++) {
        peer = peers[each]
        end = ""
        for (file in home) if (is_partner(file, peer)) end = home[file]
        if (address[end]) { sub(".*:", address[end] ":", endpoint[peer]) }
        print peer, "(none)", endpoint[peer], networks[peer], end ? now : 0, end ? 1480 : 0, end ? 1480 : 148, "off", end
      }
    }' "$@"
}

start() {
  file=$HOST/wireguard/$1.conf
  wg-quick strip "$1" >"$run/$1.conf"
  value MTU "$file" >"$run/$1.mtu"
  value Address "$file" >"$run/$1.address"
}

case ${0##*/} in
  wg)
    case $1 in
      genkey) head -c 32 /dev/urandom | base64 ;;
      pubkey) public ;;
      syncconf) cat >"$run/$2.conf" ;;
      show)
        if [ "$2" = all ]; then
          for file in "$run"/*.conf; do
            [ ! -e "$file" ] || printf '%s\t%s\n' "$(basename "$file" .conf)" "$(value ListenPort "$file")"
          done
          exit
        fi
        [ -e "$run/$2.conf" ] || { echo "Unable to access interface: No such device" >&2; exit 1; }
        case $3 in
          dump) dump "$2" ;;
          public-key) value PrivateKey "$run/$2.conf" | public ;;
          latest-handshakes) dump "$2" | awk 'NR > 1 { print $1 "\t" $5 }' ;;
        esac
        ;;
    esac
    ;;
  wg-quick) sed '/^Address = /d; /^MTU = /d' "$HOST/wireguard/$2.conf" ;;
  systemctl)
    verb=$1
    for unit in "$@"; do :; done
    name=${unit#wg-quick@}
    case $verb in
      enable) : >"$HOST/enabled-$name" ;;
      is-enabled) [ -e "$HOST/enabled-$name" ] ;;
      restart) start "$name" ;;
      disable) rm -f "$HOST/enabled-$name" "$run/$name".* ;;
    esac
    ;;
  ip)
    for last in "$@"; do :; done
    case "$*" in
      "link set dev "*) echo "$last" >"$run/$4.mtu" ;;
      *"link show dev "*) echo "7: $last: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu $(cat "$run/$last.mtu") qdisc noqueue state UNKNOWN" ;;
      *"address show dev "*) echo "7: $last    inet $(cat "$run/$last.address") scope global $last" ;;
      "address add "*) echo "$3" >"$run/$last.address" ;;
    esac
    ;;
  ping)
    for address in "$@"; do :; done
    size=$(echo "$*" | sed 's/.*-s \([0-9]*\).*/\1/')
    for file in "$run"/*.conf; do
      interface=${file##*/}
      interface=${interface%.conf}
      for folder in $(dump "$interface" | cut -f 9); do
        grep -qF "$address/" "$folder"/run/*.address || continue
        [ "$((size + 28))" -le "$(cat "$run/$interface.mtu")" ] && exit 0
      done
    done
    exit 1
    ;;
  apt-get) [ "$1" != install ] || ln -sf ../../tool.sh "$HOST/bin/wg-quick" ;;
esac
