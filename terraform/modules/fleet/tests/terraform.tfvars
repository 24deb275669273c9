# What each test is given that says nothing else.
name              = "lablink-test"
vms               = { vm-1 = {}, vm-2 = { pool = "gpu", ami_id = "ami-00000000000000002", instance_type = "g5.xlarge", subnet_id = "subnet-9", disk_gb = 200 } }
defaults          = { ami_id = "ami-00000000000000001" }
subnet_ids        = ["subnet-1", "subnet-2"]
security_group_id = "sg-vms"
allocator_url     = "https://lablink.example.org"
client_package    = "lablink==1.0"
