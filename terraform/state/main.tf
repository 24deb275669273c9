# One bucket for what must outlive everything else: the platform's state, the fleet's, and the backups. Applied once.

provider "aws" {
  region = var.region
}

data "aws_partition" "current" {}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:Who changed the state is in its versions and in CloudTrail.
  #checkov:skip=CKV_AWS_144:Backups in a second region are a copy that ops may add; the state is made again from what is there.
  #checkov:skip=CKV_AWS_145:Encrypted with S3's own key; a key of one's own keeps nobody more out than the bucket's policy.
  #checkov:skip=CKV2_AWS_62:Nothing waits for what is put in here.
  bucket        = var.bucket
  force_destroy = false # as long as anything is in it, S3 refuses to remove it
  tags          = { Name = var.bucket }
}

# An older state can be taken back.
resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [for suffix in ["", "/*"] : "arn:${data.aws_partition.current.partition}:s3:::${var.bucket}${suffix}"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
  depends_on = [aws_s3_bucket_versioning.this]
}
