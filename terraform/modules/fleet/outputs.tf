output "vms" {
  description = "The machines by hostname, and the secret that each one's join token is in."
  value = {
    for hostname, instance in aws_instance.this : hostname => {
      instance_id = instance.id
      private_ip  = instance.private_ip
      join_secret = aws_secretsmanager_secret.join[hostname].arn
    }
  }
}
