#!/bin/sh
# Make a guest of libvirt stand still:  libvirt.sh DOMAIN freeze|thaw SOURCE...     (its agent has to run)
#
# host.toml:  [commands]
#             db1 = ["/etc/blockjobs/commands/libvirt.sh", "db1"]
set -eu
case $2 in
freeze) exec virsh --quiet domfsfreeze "$1" >&2 ;;
thaw) exec virsh --quiet domfsthaw "$1" >&2 ;; # of a guest that is not frozen: nothing happens
esac
