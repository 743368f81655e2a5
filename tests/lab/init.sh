#!/bin/sh
# PID 1 of a host, in new mount, pid, uts, ipc and network namespaces. fd 0: one line once eth0 is there.
# fd 1: "ready", then "up" when this process has left the machine's own files.
# LAB_NAME LAB_ADDRESS LAB_MAC LAB_PUBLIC LAB_BASE LAB_LOWER LAB_MASK LAB_HOME LAB_DISK LAB_SEED LAB_LOG
set -e
exec 2> "$LAB_LOG"
R=$LAB_BASE/root
echo ready
read -r _go

# An overlay whose writes go to a tmpfs of limited size. Over folders that are not the system's lie empty ones of the
# same tmpfs, so that one limit holds for all.
mount -t tmpfs -o "mode=755,size=$LAB_DISK" disk "$LAB_BASE"
mkdir "$LAB_BASE/up" "$LAB_BASE/work" "$R"
mount -t overlay overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_BASE/up,workdir=$LAB_BASE/work" "$R"
for d in $LAB_MASK; do
    mkdir -p "$LAB_BASE/mask/$d" "$R/$d"
    mount --bind "$LAB_BASE/mask/$d" "$R/$d"
done
[ -z "$LAB_HOME" ] || cp -a "$LAB_HOME" "$R/home/ubuntu"
chmod 1777 "$R/tmp" "$R/var/tmp"
chmod 700 "$R/root"
mount -t proc proc "$R/proc"
mount -t sysfs -o ro sys "$R/sys"
mount -t tmpfs -o mode=755,size=1m dev "$R/dev"
for n in null zero full random urandom tty; do touch "$R/dev/$n"; mount --bind "/dev/$n" "$R/dev/$n"; done
mkdir "$R/dev/pts" "$R/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$R/dev/pts"
mount -t tmpfs -o mode=1777 shm "$R/dev/shm"
ln -s pts/ptmx "$R/dev/ptmx"
ln -s /proc/self/fd "$R/dev/fd"
cp -a "$LAB_SEED" "$R/run/lab"
chmod 700 "$R/run/lab"

hostname "$LAB_NAME"
ip link set lo up
ip addr add "$LAB_ADDRESS/24" dev eth0
[ -z "$LAB_PUBLIC" ] || ip addr add "$LAB_PUBLIC/24" dev eth0
ip link set eth0 address "$LAB_MAC" # of the address that it has: neighbours remember the two together
ip link set eth0 up
ip route add 169.254.169.254 dev eth0 # a cloud's metadata

cd "$R"
mkdir -p run/old
pivot_root . run/old
cd /
umount -l /run/old
rmdir /run/old

printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$LAB_NAME" > /etc/hosts
: > /etc/resolv.conf
mkdir -p /run/sshd /var/log
echo up
exec >&2 < /dev/null # the boot log stays outside, to be read after a death
exec /bin/sh /run/lab/boot.sh
