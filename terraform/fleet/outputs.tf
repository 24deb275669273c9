output "vms" {
  description = "The machines by hostname: instance, private address, and the secret that each one's join token is in."
  value       = module.fleet.vms
}
