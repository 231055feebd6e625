#!/bin/busybox sh
# Process 1 of a virtual machine, out of its initramfs: makes the host's files, with changes in memory, the root, mounts
# what an init system mounts, and becomes start.sh.
set -eu
/bin/busybox --install -s /bin
export PATH=/bin
trap 'echo "netdiag-vm: the machine could not be set up"; poweroff -f' EXIT

mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
for module in /modules/*.ko; do
    insmod "$module"
done

mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /lower
mount -t tmpfs -o size=90%,mode=755 tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work overlay /root

# The host's own are not for this kernel.
modules=$(cat /kernel-modules)
release=$(uname -r)
mkdir -p "/root/lib/modules/$release"
mount --bind "/root$modules" "/root/lib/modules/$release"

mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t securityfs securityfs /root/sys/kernel/security || true
mount -t bpf bpf /root/sys/fs/bpf
mount -t tracefs tracefs /root/sys/kernel/tracing
mount -t cgroup2 -o nsdelegate cgroup2 /root/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /root/run
mount -t devtmpfs devtmpfs /root/dev
mkdir -p /root/dev/pts /root/dev/shm /root/dev/net
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
ln -sf /proc/self/fd /root/dev/fd
ln -sf /proc/self/fd/0 /root/dev/stdin
ln -sf /proc/self/fd/1 /root/dev/stdout
ln -sf /proc/self/fd/2 /root/dev/stderr
# Devices whose module is loaded when they are opened, as `kmod static-nodes` lists them.
grep -v '^#' "/root$modules/modules.devname" | while read -r _ name number; do
    kind=${number%%[0-9]*}
    number=${number#"$kind"}
    mkdir -p "/root/dev/$(dirname "$name")"
    [ -e "/root/dev/$name" ] || mknod "/root/dev/$name" "$kind" "${number%:*}" "${number#*:}"
done

# As systemd leaves them: no process in the root, and controllers for whoever makes groups beside its own.
mkdir /root/sys/fs/cgroup/init.scope
echo 1 >/root/sys/fs/cgroup/init.scope/cgroup.procs
for controller in cpuset cpu io memory pids; do
    echo "+$controller" >/root/sys/fs/cgroup/cgroup.subtree_control
done

hostname netdiag-vm
ip link set lo up
mkdir -p /root/run/lock /root/run/netdiag-vm
cp /start /command /bin/busybox /root/run/netdiag-vm
umount /proc
umount /dev
trap - EXIT
exec switch_root /root /run/netdiag-vm/busybox sh /run/netdiag-vm/start
