output "host" {
  description = "Name of the server, as its certificate has it."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Port of the server."
  value       = aws_db_instance.this.port
}

output "master_secret_arn" {
  description = "Secret in which RDS keeps, and renews, the master password. It is in no state."
  value       = one(aws_db_instance.this.master_user_secret[*].secret_arn)
}

output "kms_key_arn" {
  description = "Key that the master password is encrypted with, which whoever reads it must be allowed to use; null for the account's own."
  value       = var.kms_key_arn
}

output "log_group" {
  description = "What lablink db watch-logs reads."
  value       = aws_cloudwatch_log_group.this["postgresql"].name
}
