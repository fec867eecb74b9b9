#!/bin/sh
# Cut an image in a ZFS dataset, or a volume of ZFS, by a snapshot:  zfs.sh [DATASET] create|remove SOURCE ID
#
# host.toml, an image in tank/images, which is mounted:  [commands]
#                                                        tank = ["/etc/blockjobs/commands/zfs.sh", "tank/images"]
# host.toml, a volume (`zfs set snapdev=visible tank/vm`):
#             devices = ["/dev/zvol/tank/vm", "/dev/zvol/tank/vm@cut-*"]
#             [commands]
#             zvol = ["/etc/blockjobs/commands/zfs.sh"]
set -eu
case $1 in create | remove) dataset= ;; *) dataset=$1; shift ;; esac
word=$1 source=$2 id=$3
if [ -z "$dataset" ]; then
    dataset=${source#/dev/zvol/} path=$source@cut-$id
else
    top=$(zfs get -H -o value mountpoint "$dataset")
    inner=${source#"${top%/}"/}
    [ "$inner" != "$source" ] || { echo "$source is not beneath $top" >&2; exit 1; }
    path=${top%/}/.zfs/snapshot/cut-$id/$inner
fi

names=$(zfs list -H -o name -t snapshot -d 1 "$dataset") # fails if it cannot be known
for name in $names; do
    # Of an attempt that was interrupted, too.
    [ "$name" != "$dataset@cut-$id" ] || zfs destroy "$dataset@cut-$id" >&2
done
[ "$word" = create ] || exit 0
zfs snapshot "$dataset@cut-$id" >&2
tries=50
until [ -e "$path" ]; do # the device comes a moment later
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "$path does not come: is snapdev=visible?" >&2; exit 1; }
    sleep 0.1
done
echo "$path"
