# What each test is given that says nothing else.
name                  = "lablink-test"
hostname              = "lablink.example.org"
vpc_id                = "vpc-1"
cidr                  = "10.42.0.0/16"
subnet                = { id = "subnet-public", availability_zone = "eu-central-1a" }
vms_subnet_ids        = ["subnet-1", "subnet-2"]
vms_security_group_id = "sg-vms"
ami_id                = "ami-00000000000000001"
images                = { allocator = "ghcr.io/talmolab/lablink-allocator-aws:1.0" }
bucket                = "lablink-test-bucket"
fleet                 = { variables = { region = "eu-central-1" } }
