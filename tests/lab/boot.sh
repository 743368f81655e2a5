#!/bin/sh
# The first boot: accounts, host key, sshd, and a script as a cloud's user data. Stays as PID 1, reaps, and restarts sshd.
set -e
# "shutdown -h now" ends it, whatever words it is given
mkdir -p /usr/local/sbin
for command in shutdown poweroff; do
    printf '#!/bin/sh\nkill -TERM 1\n' > /usr/local/sbin/$command
    chmod 755 /usr/local/sbin/$command
done
export PATH=/usr/local/sbin:/usr/local/bin:$PATH
[ ! -s /run/lab/bootcmd ] || sh /run/lab/bootcmd > /var/log/bootcmd.log 2>&1
cp /run/lab/ssh_host_ed25519_key* /etc/ssh/
chmod 600 /etc/ssh/ssh_host_ed25519_key
mkdir -p /etc/sudoers.d
for keys in /run/lab/accounts/*; do
    name=${keys##*/}
    # '*' and not the default '!', by which an account would be locked
    id "$name" >/dev/null 2>&1 || useradd -p '*' -m -s /bin/sh "$name"
    home=$(getent passwd "$name" | cut -d: -f6)
    chown -R "$name:" "$home" # it may have been there before
    chmod 700 "$home"
    install -d -m 700 -o "$name" "$home/.ssh"
    install -m 600 -o "$name" "$keys" "$home/.ssh/authorized_keys"
done
while read -r name; do echo "$name ALL=(ALL) NOPASSWD:ALL" > "/etc/sudoers.d/lab-$name"; done < /run/lab/sudoers
cp /run/lab/sshd_extra /run/sshd/lab.conf # of two lines the first counts
grep -q Subsystem /run/lab/sshd_extra || echo 'Subsystem sftp internal-sftp' >> /run/sshd/lab.conf
cat >> /run/sshd/lab.conf <<CFG
Port $(cat /run/lab/port)
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
PrintMotd no
UseDNS no
AllowTcpForwarding yes
CFG
if [ -s /run/lab/userdata ]; then (setsid sh /run/lab/userdata > /var/log/userdata.log 2>&1 &); fi
trap 'exit 0' TERM
set +e
while :; do
    while [ -e /run/lab/no-sshd ]; do sleep 0.02; done
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /usr/sbin/sshd -D -E /var/log/sshd.log -f /run/sshd/lab.conf &
    wait $! # and, while waiting, for every orphan
done
