#!/bin/bash
# Inside the guest: the network as the kernel's command line says (lab.address=, lab.gateway=), this run's files, rk under systemd.
# What the host wants to know goes to serial ports: ttyS1 gets the kubeconfig, ttyS2 rk's log.
set -eu
word() { tr ' ' '\n' < /proc/cmdline | sed -n "s/^$1=//p"; }
for link in /sys/class/net/e*; do name=$(basename "$link"); done
hostname guest
echo guest > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 guest\n' > /etc/hosts
echo "nameserver $(word lab.gateway)" > /etc/resolv.conf
ip link set lo up
ip link set "$name" up
ip addr add "$(word lab.address)/24" dev "$name"
ip route add default via "$(word lab.gateway)"
tar -C / -xf /dev/vdb
systemctl daemon-reload
systemctl start rk.service
until [ -s /etc/rk/kubeconfig.yaml ]; do sleep 0.2; done
stty -F /dev/ttyS1 -opost
cat /etc/rk/kubeconfig.yaml > /dev/ttyS1
echo "# end" > /dev/ttyS1
systemd-run --quiet --unit=log --property=StandardOutput=file:/dev/ttyS2 journalctl -fu rk.service -o cat
