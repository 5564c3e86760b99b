#!/bin/bash
# Process 1 of a one-node cluster: node.sh STATE
#
# Runs in mount, network, pid, UTS and IPC namespaces of its own, and gives itself a cgroup namespace. STATE is the cluster's folder, with everything
# that mod.rs prepared: bin/ (the programs), pki/, conf/ (configuration, the variables in conf/node), log/, marks/ (how far the start has come).
# All data is on a tmpfs that only these namespaces see, so that it ends with the last process.
set -euo pipefail
STATE=$1
DATA=$STATE/data
. "$STATE/conf/node" # NODE NODE_IP POD_RANGE SERVICE_RANGE ISSUER CNI, and KIND: unified (cgroup v2 alone) or hybrid (v1)
export PATH=$STATE/bin:$PATH

# The cgroup namespace's root is the cgroup that its maker is in. The caller's unshare stays behind in the one beside it: with cgroup v2, no process
# may be in a cgroup that hands controllers to its children, and that one couldn't be moved from inside.
if [ "${2:-}" != isolated ]; then
  if [ "$KIND" = unified ]; then echo 0 >"$(cat "$STATE/cgroups")/node/cgroup.procs"; fi
  exec unshare --cgroup "$BASH" "$0" "$STATE" isolated
fi

mark() { touch "$STATE/marks/$1"; }

mounts() {
  mount -t tmpfs -o mode=700 tmpfs "$DATA"
  mkdir -p "$DATA"/{var,work,etcd,kubelet,containerd,plugins,sysctl}
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/netns /run/lock
  # What containerd and the kubelet leave in /var (logs, CNI) goes to the tmpfs; a checkout that lies below /var stays readable.
  mount -t overlay -o "lowerdir=/var,upperdir=$DATA/var,workdir=$DATA/work" var /var

  # /sys shows the interfaces of the network namespace that it was mounted in, and the cgroups below the namespace's root.
  umount -R /sys/fs/cgroup
  mount -t sysfs sysfs /sys
  if [ "$KIND" = unified ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir /sys/fs/cgroup/init
    echo 0 >/sys/fs/cgroup/init/cgroup.procs
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
      echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true # the kubelet uses those that are there
    done
  else
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while read -r folder type controllers; do
      mkdir -p "$folder"
      if [ "$type" = cgroup2 ]; then mount -t cgroup2 cgroup2 "$folder"; else mount -t cgroup -o "$controllers" cgroup "$folder"; fi
    done <"$STATE/conf/hierarchies"
  fi

  # The kubelet sets these for the whole machine. It is shown files that hold what it wants, so it writes nothing.
  while read -r name value; do
    echo "$value" >"$DATA/sysctl/${name//\//.}"
    mount --bind "$DATA/sysctl/${name//\//.}" "/proc/sys/$name"
  done <<'TABLE'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
TABLE

  mount --make-rshared / # volumes with mount propagation
}

network() {
  hostname "$NODE"
  ip link set lo up
  ip address add "$NODE_IP/32" dev lo
  # Without any route, connecting to a Service's address from the node fails before kube-proxy's rules see it.
  ip route add "$SERVICE_RANGE" dev lo src "$NODE_IP"
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

# start NAME PROGRAM ARGUMENT…
# On a busy machine a server may give up because it finds another one not ready yet; until the cluster is ready it is started again then.
# Afterwards what ends has ended.
start() {
  local name=$1
  shift
  while true; do
    "$@" || echo "ended with $?" >&2
    if [ -e "$STATE/marks/ready" ]; then break; fi
    sleep 1
  done >"$STATE/log/$name.log" 2>&1 &
}

# Tries a command until it works, seldom enough to leave the processors to what it waits for. The caller of node.sh watches the clock.
until_works() { until "$@" >/dev/null 2>&1; do sleep 0.3; done; }

import_images() {
  until_works ctr version
  # The sandbox image first: no pod starts without it.
  local archive
  for archive in "$STATE"/images/pause.tar "$STATE"/images/*.tar; do
    ctr --namespace k8s.io images import "$archive"
    mark pause
  done
  mark images
}

mounts
network
mark isolated

start etcd etcd --data-dir="$DATA/etcd" --unsafe-no-fsync --listen-client-urls=http://127.0.0.1:2379 \
  --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380
start containerd containerd --config="$STATE/conf/containerd.toml"
start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --advertise-address="$NODE_IP" \
  --tls-cert-file="$STATE/pki/kube-apiserver.crt" --tls-private-key-file="$STATE/pki/kube-apiserver.key" \
  --client-ca-file="$STATE/pki/ca.crt" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --kubelet-client-certificate="$STATE/pki/kube-apiserver-kubelet-client.crt" \
  --kubelet-client-key="$STATE/pki/kube-apiserver-kubelet-client.key" \
  --kubelet-certificate-authority="$STATE/pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --service-account-issuer="$ISSUER" --service-account-jwks-uri="$ISSUER/openid/v1/jwks" \
  --service-account-signing-key-file="$STATE/pki/service-accounts.key" --service-account-key-file="$STATE/pki/service-accounts.key" \
  --service-cluster-ip-range="$SERVICE_RANGE"
import_images >"$STATE/log/images.log" 2>&1 &
until_works kubectl --kubeconfig="$STATE/conf/admin.kubeconfig" get --raw=/readyz
mark kube-apiserver

# The default limits on requests make the controllers start slowly: the first ServiceAccount would come seconds after the node.
start kube-controller-manager kube-controller-manager --kubeconfig="$STATE/conf/kube-controller-manager.kubeconfig" \
  --authentication-kubeconfig="$STATE/conf/kube-controller-manager.kubeconfig" \
  --authorization-kubeconfig="$STATE/conf/kube-controller-manager.kubeconfig" \
  --leader-elect=false --kube-api-qps=200 --kube-api-burst=400 --use-service-account-credentials \
  --service-account-private-key-file="$STATE/pki/service-accounts.key" --root-ca-file="$STATE/pki/ca.crt" \
  --flex-volume-plugin-dir="$DATA/plugins" \
  --cluster-signing-cert-file="$STATE/pki/ca.crt" --cluster-signing-key-file="$STATE/pki/ca.key"
start kube-scheduler kube-scheduler --kubeconfig="$STATE/conf/kube-scheduler.kubeconfig" \
  --authentication-kubeconfig="$STATE/conf/kube-scheduler.kubeconfig" --authorization-kubeconfig="$STATE/conf/kube-scheduler.kubeconfig" \
  --leader-elect=false
start kube-proxy kube-proxy --config="$STATE/conf/kube-proxy.yaml" --hostname-override="$NODE"
until [ -e "$STATE/marks/pause" ]; do sleep 0.1; done
start kubelet kubelet --config="$STATE/conf/kubelet.yaml" --kubeconfig="$STATE/conf/kubelet.kubeconfig" --root-dir="$DATA/kubelet" \
  --hostname-override="$NODE" --node-ip="$NODE_IP"

# Process 1 takes over orphans. Bash reaps them while it waits, for the servers as long as they run.
while true; do
  wait || true
  sleep 1
done
