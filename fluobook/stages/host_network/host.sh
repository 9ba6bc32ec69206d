# Read by `sh` on a Proxmox VE host, as root, after the settings of the host; it may run again at any time.
# The host makes its own keys, and no private key leaves it. The output is what `mesh.read` reads.
set -eu
umask 077
folder=/etc/wireguard
file=$folder/$tunnel.conf
private=$folder/$tunnel.$key.key
stanzas=/etc/network/interfaces

say() { printf '%s\n' "$*"; }

is_up() { wg show "$interface" public-key >/dev/null 2>&1; }

tools() {
  command -v wg-quick >/dev/null && return
  apt-get install -y -qq wireguard-tools >&2 || { apt-get update -qq >&2 && apt-get install -y -qq wireguard-tools >&2; }
}

make_key() {
  tools
  mkdir -p "$folder"
  has_key || { if [ "$given" ]; then say "$given"; else wg genkey; fi >"$private.new" && mv "$private.new" "$private"; }
}

has_key() {
  [ -s "$private" ] && wg pubkey <"$private" >/dev/null 2>&1 && { [ -z "$given" ] || [ "$given" = "$(cat "$private")" ]; }
}

# Proxmox VE looks for the local end of a VXLAN zone among these stanzas; without `auto`, wg-quick alone sets it up.
write_stanza() {
  grep -q "^iface $interface " "$stanzas" && sed -i "/^iface $interface /,/^\$/d" "$stanzas"
  printf '\niface %s inet static\n\taddress %s/32\n\tmtu %s\n\n' "$interface" "$address" "$mtu" >>"$stanzas"
}

has_stanza() {
  [ "$(sed -n "/^iface $interface /,/^\$/p" "$stanzas" 2>/dev/null | tr -d '\n\t')" = \
    "iface $interface inet staticaddress $address/32mtu $mtu" ]
}

has_address() { ip -o -4 address show dev "$interface" | grep -qF " $address/32 "; }

# Sessions of unchanged peers go on: only what differs is set.
update_running() {
  wg-quick strip "$interface" | wg syncconf "$interface" /dev/stdin
  ip link set dev "$interface" mtu "$mtu"
  has_address || {
    ip -4 address flush dev "$interface"
    ip address add "$address/32" dev "$interface"
  }
  for route in $routes; do ip -4 route replace "$route" dev "$interface"; done
  ip -4 route show dev "$interface" | while read -r route _; do
    case " $routes " in *" $route "* | *" $route/32 "*) ;; *) ip -4 route del "$route" dev "$interface" ;; esac
  done
}

# Writes the file with the host's key, or (verb peers) with the key that it uses now.
write_mesh() {
  make_key
  if [ "$verb" = peers ] && [ -e "$file" ]; then own=$(sed -n 's/^PrivateKey = //p' "$file"); else own=$(cat "$private"); fi
  { say '[Interface]' && say "PrivateKey = $own" && configuration; } >"$file.new"
  mv "$file.new" "$file"
  has_stanza || write_stanza
  systemctl enable "wg-quick@$interface" >&2
  if is_up; then update_running; else systemctl restart "wg-quick@$interface" >&2; fi
  [ "$verb" = mesh ] || return 0
  for other in "$folder/$tunnel".*.key; do [ "$other" = "$private" ] || rm -f "$other"; done
}

remove_mesh() {
  systemctl disable --now "wg-quick@$interface" >&2 || true
  rm -f "$file" "$folder/$tunnel".*.key
  sed -i "/^iface $interface /,/^\$/d" "$stanzas"
}

observe() {
  command -v wg-quick >/dev/null || { say missing wireguard-tools && return; }
  ! has_key || say public "$(wg pubkey <"$private")"
  if [ -e "$file" ]; then
    say file "$(grep -v '^PrivateKey' "$file" | sha256sum | cut -d' ' -f1)" "$(stat -c %a "$file")"
    say holds "$(sed -n 's/^PrivateKey = //p' "$file" | wg pubkey)"
  fi
  wg show all listen-port | while read -r name port; do say port "$name" "$port"; done
  if has_stanza; then say stanza; fi
  if systemctl is-enabled -q "wg-quick@$interface"; then say enabled; fi
  is_up || return 0
  for peer in $peers; do
    ping -q -c 2 -i 0.2 -W 2 -M do -s $((mtu - 28)) "$peer" >/dev/null 2>&1 && say path "$peer" &
  done
  wait
  if has_address; then say addressed; fi
  now=$(date +%s)
  # After the pings, which open the sessions. The first line is the interface's and begins with its private key, which
  # stays here.
  wg show "$interface" dump | {
    read -r _ public _
    say running "$public" "$(ip -o link show dev "$interface" | sed 's/.* mtu \([0-9]*\).*/\1/')"
    while read -r peer _ endpoint allowed time received sent _; do
      say peer "$peer" $((time == 0 ? -1 : now > time ? now - time : 0)) "$received" "$sent" "$endpoint" "$allowed"
    done
  }
}

case $verb in
  tools) tools ;;
  key) make_key ;;
  remove) remove_mesh ;;
  mesh | peers) write_mesh ;;
esac
observe
