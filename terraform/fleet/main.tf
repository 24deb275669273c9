# What the allocator drives: the machines, in a state of their own, so that nothing else can go with them.

provider "aws" {
  region = var.region
}

module "fleet" {
  source               = "../modules/fleet"
  name                 = var.settings.name
  vms                  = var.vms
  defaults             = var.settings.defaults
  subnet_ids           = var.settings.subnet_ids
  security_group_id    = var.settings.security_group_id
  allocator_url        = var.settings.allocator_url
  client_package       = var.settings.client_package
  image                = var.settings.image
  startup_script       = var.settings.startup_script
  permissions_boundary = var.settings.permissions_boundary
}
