"""Where servers are listed: Consul, etcd, ZooKeeper, a directory of ours, or names of DNS.

A client asks for the list, and a server announces itself. The methods of a registry wait, so they
run on a thread of their own, one at a time; each ends within seconds, whatever the registry does.

| | listed by | gone after a crash |
|---|---|---|
| `consul` | a service of the agent, with a TTL check | the TTL |
| `etcd` | a key below the service's name, with a lease | the TTL |
| `zk` | an ephemeral node below the service's path | the session's timeout, which is the TTL |
| `directory` | an entry of the directory | the TTL |
| `srv` | whoever keeps the zone | never: clients eject it |
"""
