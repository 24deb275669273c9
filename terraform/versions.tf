terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }

  # Bucket, key and region: terraform init -backend-config=platform.tfbackend, a file that terraform/state writes out.
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}
