#!/bin/sh
# Plays wg, wg-quick, ip, ping, systemctl and apt-get of the host whose folder is $HOST; the other hosts are beside it.
# run/NAME.conf is the running interface NAME, run/NAME.mtu its MTU, run/NAME.address its address.
set -eu
run=$HOST/run
mkdir -p "$run"

value() { sed -n "s/^$1 = //p" "$2"; }

# The public key of a private key; it takes a moment, so that each is kept.
public() {
  read -r key || :
  [ "${#key}" = 44 ] || { echo "wg: Key is not the correct length or format" >&2; return 1; }
  kept=$HOST/../keys/$(echo "$key" | sha256sum | cut -c1-32)
  if [ ! -s "$kept" ]; then
    mkdir -p "$HOST/../keys"
    echo "$key" | "$HOST/../pubkey" >"$kept.$$"
    mv "$kept.$$" "$kept"
  fi
  cat "$kept"
}

# The folders of the hosts at the other end of a peer, if each knows the other's key and one reaches the other's endpoint.
partner() {
  own=$(value PrivateKey "$run/$1.conf" | public)
  [ ! -e "$HOST/blocked" ] || return 0
  for other in "$HOST"/../*/run/*.conf; do
    folder=$(dirname "$(dirname "$other")")
    [ ! -e "$folder/blocked" ] || continue
    [ "$(value PrivateKey "$other" | public)" = "$2" ] || continue
    grep -qF "PublicKey = $own" "$other" || continue
    if grep -qF "Endpoint = $(cat "$folder/address"):$(value ListenPort "$other")" "$run/$1.conf" ||
      grep -qF "Endpoint = $(cat "$HOST/address"):$(value ListenPort "$run/$1.conf")" "$other"; then
      echo "$folder"
    fi
  done
}

# The key, endpoint ("(none)" without one) and networks of each peer of an interface.
peers() {
  awk 'function show() { if (key) print key, endpoint, networks }
    /^PublicKey/ { show(); key = $3; endpoint = "(none)" }
    /^Endpoint/ { endpoint = $3 }
    /^AllowedIPs/ { gsub(",", ""); $1 = $2 = ""; networks = $0 }
    END { show() }' "$run/$1.conf"
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
          public-key) value PrivateKey "$run/$2.conf" | public ;;
          latest-handshakes | transfer)
            value PublicKey "$run/$2.conf" | while read -r peer; do
              if [ -n "$(partner "$2" "$peer")" ]; then told="$(date +%s) 1480	1480"; else told="0 0	148"; fi
              if [ "$3" = transfer ]; then printf '%s\t%s\n' "$peer" "${told#* }"; else printf '%s\t%s\n' "$peer" "${told%% *}"; fi
            done
            ;;
          endpoints)
            peers "$2" | while read -r peer endpoint _; do
              for folder in $(partner "$2" "$peer"); do
                address=$(cat "$folder/address")
                [ -z "$address" ] || endpoint=$address:${endpoint##*:}
              done
              printf '%s\t%s\n' "$peer" "$endpoint"
            done
            ;;
          allowed-ips) peers "$2" | while read -r peer _ networks; do printf '%s\t%s\n' "$peer" "$networks"; done ;;
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
      interface=$(basename "$file" .conf)
      for peer in $(value PublicKey "$file"); do
        for folder in $(partner "$interface" "$peer"); do
          grep -qF "$address/" "$folder"/run/*.address || continue
          [ "$((size + 28))" -le "$(cat "$run/$interface.mtu")" ] && exit 0
        done
      done
    done
    exit 1
    ;;
  apt-get) [ "$1" != install ] || ln -sf ../../tool.sh "$HOST/bin/wg-quick" ;;
esac
