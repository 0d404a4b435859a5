#!/bin/bash
# Keys and certificates for upstream's control plane. usage: upstream-pki.sh FOLDER
set -euo pipefail
mkdir -p "$1"; cd "$1"
ca() { # FILE NAME
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -x509 -new -key "$1.key" -subj "/CN=$2" -days 30 -out "$1.crt" -addext keyUsage=critical,digitalSignature,keyCertSign,cRLSign
}
certificate() { # FILE SUBJECT CA USAGE [NAMES]
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    { echo "keyUsage=critical,digitalSignature"; echo "extendedKeyUsage=$4"; [ -z "${5:-}" ] || echo "subjectAltName=$5"; } > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$3.crt" -CAkey "$3.key" -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}
ca ca kubernetes-ca
ca front-proxy front-proxy-ca
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
certificate apiserver /CN=kube-apiserver ca serverAuth "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:10.96.0.1,IP:127.0.0.1"
certificate proxy-client /CN=front-proxy-client front-proxy clientAuth
certificate admin /O=system:masters/CN=admin ca clientAuth
