#!/bin/sh
# Cut a logical volume by a snapshot of LVM:  lvm.sh [EXTENTS] create|remove /dev/VG/LV ID
#
# EXTENTS: room for what is written to the volume meanwhile (default 10%ORIGIN); a thin volume needs none.
# host.toml:  devices = ["/dev/vg0/root", "/dev/vg0/root-cut-*"]
#             [commands]
#             lvm = ["/etc/blockjobs/commands/lvm.sh", "20%ORIGIN"]
set -eu
case $1 in create | remove) extents=10%ORIGIN ;; *) extents=$1; shift ;; esac
word=$1 source=$2 id=$3
group=$(basename "$(dirname "$source")")
volume=$(basename "$source")
cut=$volume-cut-$id

names=$(lvs --noheadings --options lv_name "$group") # fails if it cannot be known
for name in $names; do
    # Of an attempt that was interrupted, too.
    [ "$name" != "$cut" ] || lvremove --quiet --force "$group/$cut" >&2
done
[ "$word" = create ] || exit 0
pool=$(lvs --noheadings --options pool_lv "$group/$volume" | tr -d ' ')
if [ -n "$pool" ]; then
    lvcreate --quiet --snapshot --setactivationskip n --name "$cut" "$group/$volume" >&2
else
    lvcreate --quiet --snapshot --extents "$extents" --name "$cut" "$group/$volume" >&2
fi
echo "/dev/$group/$cut"
