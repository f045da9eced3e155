#!/bin/bash
# A private SLURM on this machine for the tests: loopback only, nothing in /etc, no systemd.
#
#   tests/slurm_up.sh DIR          start; then `. DIR/env.sh` and use sbatch, squeue …
#   tests/slurm_up.sh --stop DIR   end it (only what was started for DIR)
#
# Two virtual nodes: cpu1 (partition cpu, the default) and gpu1 (partition gpu, a fake gres/gpu).
# Needs: apt-get install -y --no-install-recommends slurm-wlm munge
# Variables: SLURM_CTLPORT (first of four ports, default 16817), SLURM_MINJOBAGE (s that an ended
# job is remembered, default 300).
set -euo pipefail

daemons=(slurmd.gpu1 slurmd.cpu1 slurmctld munged)

stop() {
  local dir=$1 name pid state
  for name in "${daemons[@]}"; do
    [ -f "$dir/$name.pid" ] || continue
    pid=$(cat "$dir/$name.pid")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 40); do
      state=$(ps -o stat= -p "$pid" 2>/dev/null || true)
      case "$state" in "" | Z*) continue 2 ;; esac
      sleep 0.25
    done
    kill -9 "$pid" 2>/dev/null || true
  done
}

if [ "${1:-}" = --stop ]; then
  stop "$2"
  exit 0
fi

mkdir -p "$1"
dir=$(cd "$1" && pwd)
port=${SLURM_CTLPORT:-16817}
host=$(hostname -s)
cpus=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)  # nproc would obey them
memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 512))

mkdir -p "$dir"/{munge,ctld,d,log}
chmod 0755 "$dir"
head -c 1024 /dev/urandom >"$dir/munge/munge.key"
chmod 0400 "$dir/munge/munge.key"
chmod 0711 "$dir/munge"

cat >"$dir/slurm.conf" <<CONF
ClusterName=qsmtest
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/munge.sock
StateSaveLocation=$dir/ctld
SlurmdSpoolDir=$dir/d/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
GresTypes=gpu
ReturnToService=2
KillWait=2
MinJobAge=${SLURM_MINJOBAGE:-300}
MaxArraySize=6
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
NodeName=cpu1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=$cpus RealMemory=$memory
NodeName=gpu1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 3)) CPUs=$cpus RealMemory=$memory Gres=gpu:1
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=60 State=UP OverSubscribe=NO
PartitionName=gpu Nodes=gpu1 Default=NO MaxTime=60 State=UP OverSubscribe=NO
CONF
echo "NodeName=gpu1 Name=gpu File=/dev/null" >"$dir/gres.conf"
printf 'CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n' >"$dir/cgroup.conf"
echo "export SLURM_CONF=$dir/slurm.conf" >"$dir/env.sh"
export SLURM_CONF=$dir/slurm.conf

trap 'stop "$dir"' ERR
/usr/sbin/munged --force --key-file="$dir/munge/munge.key" --socket="$dir/munge/munge.sock" \
  --pid-file="$dir/munged.pid" --log-file="$dir/log/munged.log" \
  --seed-file="$dir/munge/munge.seed" --num-threads=2
/usr/sbin/slurmctld -c -i 2>>"$dir/log/start"
/usr/sbin/slurmd -c -N cpu1 2>>"$dir/log/start"
/usr/sbin/slurmd -c -N gpu1 2>>"$dir/log/start"

idle() { [ "$(timeout 5 sinfo -h -o %T 2>/dev/null | sort -u)" = idle ]; }
for _ in $(seq 80); do
  idle && exit 0
  sleep 0.25
done
echo "SLURM did not start; see $dir/log" >&2
stop "$dir"
exit 1
