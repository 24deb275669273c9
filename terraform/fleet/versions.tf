terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }

  # Which bucket, key and region, the allocator says at init: what the platform's output fleet_backend holds.
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}
