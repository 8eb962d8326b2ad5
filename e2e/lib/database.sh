# shellcheck shell=bash
# PostgreSQL on a volume of Roadstead: what the demo and the scenario `database` do. After roadstead.sh.
# The namespace is kubectl's current one.

db_apply() { sed "s|@POSTGRES@|$(image_ref postgres)|" "$E2E/manifests/postgres.yaml" | k apply -f -; }
db_node() { field pod/postgres-0 .spec.nodeName; }
db_ready() { # [UID OF THE POD THAT WENT]
  until_ok 120 "a new pod postgres-0" db_is_new "${1:-}"
  wait_pod postgres-0 120
}
db_is_new() { [ "$(field pod/postgres-0 .metadata.uid)" != "$1" ]; }
db_exec() { kubectl exec postgres-0 -- "$@"; }
db_init() { db_exec pgbench -i -q -s "${1:-10}" postgres; }
db_load() { db_exec pgbench -n -c 4 -j 2 -T "${1:-15}" postgres; } # -n: else it empties the history that db_invariants adds up

# Money is only moved: what all transfers add up to is what stands in accounts, tellers and branches.
db_invariants() {
  local sums
  sums=$(db_exec psql -At -F ' ' -c "select (select sum(delta) from pgbench_history), (select sum(abalance) from pgbench_accounts),
    (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches), (select count(*) from pgbench_history)" postgres)
  local history accounts tellers branches transactions
  read -r history accounts tellers branches transactions <<<"$sums"
  [ "$transactions" -gt 0 ] || die "no transaction was recorded"
  [ "$history" = "$accounts" ] && [ "$history" = "$tellers" ] && [ "$history" = "$branches" ] ||
    die "pgbench's sums differ: history $history, accounts $accounts, tellers $tellers, branches $branches"
  echo "$transactions transactions; history, accounts, tellers and branches all add up to $history"
}
# Newer versions put a random word after \restrict.
db_checksum() { db_exec sh -c "set -o pipefail; pg_dump postgres | grep -vE '^.(un)?restrict ' | sha256sum | cut -c1-64"; }

db_corruption_check() { db_exec psql -At -c "select count(*) from pg_class where relkind = 'r'" postgres; }

# io_count NODE VOLUME: reads and writes that the target on that node has done for the volume
io_count() {
  metrics "$1" | awk -v v="volume=\"$2\"" 'index($0, v) && /^roadstead_volume_(reads|writes)_total/ {n += $NF} END {printf "%d\n", n}'
}
