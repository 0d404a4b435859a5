#!/bin/bash
# Inside the guest: name and network as the kernel's command line says (lab.name=, lab.address=, lab.gateway=), then rk under its unit
# (lab.unit=). What the host wants to know goes to serial ports: ttyS1 gets a server's kubeconfig, ttyS2 rk's log.
set -eu
word() { tr ' ' '\n' < /proc/cmdline | sed -n "s/^$1=//p"; }
for link in /sys/class/net/e*; do nic=$(basename "$link"); done
name=$(word lab.name) unit=$(word lab.unit)
hostname "$name"
echo "$name" > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" > /etc/hosts
echo "nameserver $(word lab.gateway)" > /etc/resolv.conf
ip link set lo up
ip link set "$nic" up
ip addr add "$(word lab.address)/24" dev "$nic"
ip route add default via "$(word lab.gateway)"
systemctl daemon-reload
systemd-run --quiet --unit=log --property=StandardOutput=file:/dev/ttyS2 journalctl -fu "$unit" -o cat
systemctl start "$unit"
stty -F /dev/ttyS1 -opost
if [ "$unit" = rk.service ]; then
    until [ -s /etc/rk/kubeconfig.yaml ]; do sleep 0.2; done
    cat /etc/rk/kubeconfig.yaml > /dev/ttyS1
fi
echo "# end" > /dev/ttyS1
