#!/bin/sh
# Cut an image in a Btrfs subvolume by a snapshot of the subvolume:  btrfs.sh SUBVOLUME create|remove SOURCE ID
#
# One file needs none of it: `snapshot: reflink` does.
# host.toml:  [commands]
#             images = ["/etc/blockjobs/commands/btrfs.sh", "/srv/images"]
set -eu
subvolume=${1%/} word=$2 source=$3 id=$4
cut=$subvolume/.cut-$id
inner=${source#"$subvolume"/}
[ "$inner" != "$source" ] || { echo "$source is not beneath $subvolume" >&2; exit 1; }

[ ! -e "$cut" ] || btrfs subvolume delete "$cut" >&2 # also of an attempt that was interrupted
[ "$word" = create ] || exit 0
btrfs subvolume snapshot -r "$subvolume" "$cut" >&2
echo "$cut/$inner"
