# For a department: RDS with a standby, which machines have no way to; a certificate of the university's, people from its
# network only.
name     = "lablink-prod"
region   = "eu-central-1"
zones    = ["a", "b", "c"]
bucket   = "lablink-prod-7f3a"
hostname = "lablink.example.edu"

people_cidrs           = ["192.0.2.0/24", "198.51.100.0/24"]
certificate_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:lablink-web-AbCdEf"
admin_cidrs            = ["192.0.2.7/32"]
ssh_key                = "ada"
topic_arn              = "arn:aws:sns:eu-central-1:123456789012:lablink-alarms"
interface_endpoints    = ["secretsmanager"]

transport = "hub"
database = {
  instance_class = "db.t4g.medium"
  multi_az       = true
  backup_days    = 14
}

allocator = { images = { allocator = "ghcr.io/example-lab/lablink-allocator-aws:0.1.0" } }
machines = {
  client_package = "https://files.example.org/lablink-0.1.0-py3-none-any.whl#sha256=0000000000000000000000000000000000000000000000000000000000000000"
  instance_type  = "m7i.xlarge"
  disk_gb        = 100
}
tags = { costcentre = "4711" }
