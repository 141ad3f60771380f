#!/bin/sh
# Creates a certificate authority and a certificate for the broker in FOLDER.
#   deploy/certificates.sh FOLDER BROKER [DAYS]      BROKER: host name or IPv4 address at which edges reach it
set -eu
[ $# -ge 2 ] || { echo "usage: $0 FOLDER BROKER [DAYS]" >&2; exit 2; }
folder=$1 broker=$2 days=${3:-825}
case $broker in *[!0-9.]*) kind=DNS ;; *) kind=IP ;; esac
umask 077
mkdir -p "$folder"
cd "$folder"
# Python 3.13 and newer verify that the authority states its key usage, and the certificate the key of its authority.
[ -e ca.key ] || openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3650 -subj "/CN=sagelink" \
    -addext keyUsage=critical,keyCertSign,cRLSign
openssl req -newkey rsa:2048 -nodes -keyout broker.key -out broker.csr -subj "/CN=$broker"
printf 'subjectAltName=%s:%s\nauthorityKeyIdentifier=keyid\n' "$kind" "$broker" > names
openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days "$days" -out broker.pem
rm broker.csr names
chmod 644 ca.pem broker.pem
echo "created $PWD/ca.pem (for edges and servers), broker.pem and broker.key (for the broker); store ca.key elsewhere"
