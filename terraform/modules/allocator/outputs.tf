output "public_ip" {
  description = "Address for the hostname's A record."
  value       = aws_eip.this.public_ip
}

output "security_group_id" {
  description = "The allocator's group: the database admits it."
  value       = aws_security_group.this.id
}

output "vm_boundary_arn" {
  description = "Permissions boundary of the machines' roles; the allocator can make none without it."
  value       = aws_iam_policy.vm.arn
}

output "settings" {
  description = "The allocator's settings, as /etc/lablink/overrides has them. No secret is among them."
  value       = local.settings
}
