# A lab of its own: the database in a container on the allocator, machines as they are needed.
# About 60 dollars a month for the allocator and the network (most of it the NAT gateway), and what the machines cost.
name     = "lablink-lab"
region   = "eu-central-1"
bucket   = "lablink-lab-7f3a"
hostname = "lablink.example.org"

admin_cidrs = ["192.0.2.7/32"]
ssh_key     = "ada"

allocator = { images = { allocator = "ghcr.io/example-lab/lablink-allocator-aws:0.1.0" } }
machines  = { client_package = "https://files.example.org/lablink-0.1.0-py3-none-any.whl#sha256=0000000000000000000000000000000000000000000000000000000000000000" }
settings  = ["pool.programs=[python3]"]
