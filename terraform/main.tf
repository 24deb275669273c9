# LabLink on AWS: a network, the allocator, and RDS for whom asks for it. The machines are the allocator's own affair.

provider "aws" {
  region = var.region
  default_tags {
    tags = merge({ deployment = var.name }, var.tags)
  }
}

locals {
  zones = [for letter in var.zones : "${var.region}${letter}"]

  # What terraform/fleet is given. The list of machines is the allocator's.
  fleet_settings = {
    name                 = var.name
    defaults             = { ami_id = coalesce(var.machines.ami_id, local.ubuntu), instance_type = var.machines.instance_type, disk_gb = var.machines.disk_gb }
    subnet_ids           = module.network.private_subnet_ids
    security_group_id    = module.network.vms_security_group_id
    allocator_url        = "https://${var.hostname}"
    client_package       = var.machines.client_package
    image                = var.machines.image
    startup_script       = var.machines.startup_script
    permissions_boundary = module.allocator.vm_boundary_arn
  }
  fleet_backend = { bucket = var.bucket, key = "fleet/terraform.tfstate", region = var.region }

  # Machines that speak over the hub have no way to the database.
  database_clients = merge(
    { allocator = module.allocator.security_group_id },
    var.transport == "hub" ? {} : { fleet = module.network.vms_security_group_id },
  )

  ubuntu = one(data.aws_ami.ubuntu[*].id)
}

# Canonical's Ubuntu 24.04, where no other image is named.
data "aws_ami" "ubuntu" {
  count       = var.allocator.ami_id == null || var.machines.ami_id == null ? 1 : 0
  most_recent = true
  owners      = ["099720109477"]
  filter {
    name   = "name"
    values = ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"]
  }
}

module "network" {
  source              = "./modules/network"
  name                = var.name
  cidr                = var.cidr
  availability_zones  = local.zones
  interface_endpoints = var.interface_endpoints
}

module "allocator" {
  source                 = "./modules/allocator"
  name                   = var.name
  hostname               = var.hostname
  public_zone_id         = var.public_zone_id
  certificate_secret_arn = var.certificate_secret_arn
  vpc_id                 = module.network.vpc_id
  cidr                   = var.cidr
  subnet                 = { id = module.network.public_subnet_ids[0], availability_zone = local.zones[0] }
  vms_subnet_ids         = module.network.private_subnet_ids
  vms_security_group_id  = module.network.vms_security_group_id
  identity_certificate   = var.identity_certificate
  people_cidrs           = var.people_cidrs
  admin_cidrs            = var.admin_cidrs
  ssh_key                = var.ssh_key
  ami_id                 = coalesce(var.allocator.ami_id, local.ubuntu)
  instance_type          = var.allocator.instance_type
  data_gb                = var.allocator.data_gb
  images                 = var.allocator.images
  database               = one(module.database[*])
  settings               = var.settings
  transport              = var.transport
  fleet                  = { backend = local.fleet_backend, variables = { region = var.region, settings = local.fleet_settings } }
  bucket                 = var.bucket
  topic_arn              = var.topic_arn
}

module "database" {
  source              = "./modules/database"
  count               = var.database == null ? 0 : 1
  name                = var.name
  vpc_id              = module.network.vpc_id
  subnet_ids          = module.network.private_subnet_ids
  clients             = local.database_clients
  engine_version      = var.database.engine_version
  instance_class      = var.database.instance_class
  max_connections     = var.database.max_connections
  storage_gb          = var.database.storage_gb
  multi_az            = var.database.multi_az
  backup_days         = var.database.backup_days
  backup_window       = var.database.backup_window
  maintenance_window  = var.database.maintenance_window
  deletion_protection = var.database.deletion_protection
  kms_key_arn         = var.database.kms_key_arn
}
