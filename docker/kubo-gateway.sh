# Run by kubo's image before the node starts. The gateway is public: it serves what this node holds, and fetches nothing
# else from the network for anyone who asks, unless IPFS_GATEWAY_NO_FETCH=false in .env allows it.
ipfs config --json Gateway.NoFetch "${GATEWAY_NO_FETCH:-true}"
