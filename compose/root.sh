#!/bin/sh
# Makes the root directory of the image in $2: the programs `confman` and `drtool` in $1, the shared libraries that they name, what
# the C library needs to resolve names, the certificates of the public authorities, a user.
set -eu
programs=$1
root=$2

# All of it is made here, in one layer: of a directory that an earlier layer has made, Docker does not keep the new time.
mkdir -p "$root/usr/local/bin"
cp "$programs/confman" "$programs/drtool" "$root/usr/local/bin/"

# `ldd` prints "name => path (address)" and, for the loader, "path (address)".
libraries=$(ldd "$root"/usr/local/bin/* | awk '$2 == "=>" { print $3; next } $1 ~ "^/" && NF == 2 { print $1 }' | sort -u)
for library in $libraries; do
    case "$library" in "$root"/*) continue ;; esac
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

mkdir -p "$root/etc/ssl/certs" "$root/tmp" "$root/var/lib/confman" "$root/keys"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
echo 'confman:x:10001:10001::/var/lib/confman:/nonexistent' > "$root/etc/passwd"
echo 'confman:x:10001:' > "$root/etc/group"
chmod 1777 "$root/tmp"
chmod 700 "$root/var/lib/confman" "$root/keys"
chown 10001:10001 "$root/var/lib/confman" "$root/keys"
# The same files make the same layer, whenever it is made.
find "$root" -exec touch -hd @0 {} +
