output "backend" {
  description = "What platform.tfbackend holds: terraform -chdir=terraform/state output -raw backend > terraform/platform.tfbackend."
  value       = <<-END
    bucket = "${aws_s3_bucket.this.id}"
    key    = "platform/terraform.tfstate"
    region = "${var.region}"
  END
}
