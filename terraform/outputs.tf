output "url" {
  description = "The page."
  value       = "https://${var.hostname}"
}

output "public_ip" {
  description = "Address for the hostname's A record, where public_zone_id is null."
  value       = module.allocator.public_ip
}

output "settings" {
  description = "The allocator's configuration, a line each. No secret is among them."
  value       = module.allocator.settings
}

output "ssh" {
  description = "How admins log in to the allocator, from admin_cidrs."
  value       = "ssh ubuntu@${module.allocator.public_ip}"
}

output "psql" {
  description = "How admins open the database, in a container or in RDS."
  value       = "ssh -t ubuntu@${module.allocator.public_ip} sudo docker exec -it lablink-allocator psql -U lablink -d lablink_db"
}

output "fleet_backend" {
  description = "Where terraform/fleet keeps its state: terraform init -backend-config."
  value       = local.fleet_backend
}

output "fleet_settings" {
  description = "The variable `settings` of terraform/fleet. The allocator has it in /etc/lablink/fleet.json."
  value       = local.fleet_settings
}

output "database" {
  description = "RDS: address, and the secret that the master password is in; null for PostgreSQL in a container."
  value       = one(module.database[*])
}
