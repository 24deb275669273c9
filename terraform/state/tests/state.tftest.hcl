# What the bucket promises, against a mock of AWS.
mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { id = "lablink-test-bucket" }
  }
}

variables {
  region = "eu-central-1"
  bucket = "lablink-test-bucket"
}

run "encrypted" {
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "state and backups are encrypted"
  }
  assert {
    condition     = jsondecode(aws_s3_bucket_policy.this.policy).Statement[0].Effect == "Deny" && jsondecode(aws_s3_bucket_policy.this.policy).Statement[0].Condition == { Bool = { "aws:SecureTransport" = "false" } }
    error_message = "and go over TLS"
  }
}

run "for_nobody_else" {
  assert {
    condition     = aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy && aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    error_message = "nothing in it can be made public"
  }
}

run "an_older_state_can_be_taken_back" {
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "versions are kept"
  }
  assert {
    condition     = one(one(aws_s3_bucket_lifecycle_configuration.this.rule).noncurrent_version_expiration).noncurrent_days == 90
    error_message = "for a quarter of a year"
  }
}

run "a_destroy_takes_nothing_with_it" {
  assert {
    condition     = !aws_s3_bucket.this.force_destroy
    error_message = "a bucket with states and backups in it stays"
  }
}

run "the_backend_is_told" {
  assert {
    condition     = output.backend == "bucket = \"lablink-test-bucket\"\nkey    = \"platform/terraform.tfstate\"\nregion = \"eu-central-1\"\n"
    error_message = "the output is what terraform init takes"
  }
}

run "odd_values_are_refused" {
  command = plan
  variables {
    region = "Frankfurt"
    bucket = "My Bucket"
  }
  expect_failures = [var.region, var.bucket]
}
