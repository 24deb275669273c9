variable "region" {
  description = "Where the machines are."
  type        = string
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is such as eu-central-1."
  }
}

variable "vms" {
  description = "The machines, by hostname: the allocator's list. Whatever is not given is as in `settings.defaults`."
  type = map(object({
    pool          = optional(string)
    ami_id        = optional(string)
    instance_type = optional(string)
    subnet_id     = optional(string)
    disk_gb       = optional(number)
  }))
  nullable = false
  # Without a default: an apply that was not told which machines there are must not destroy them all.
}

variable "settings" {
  description = "What all machines have in common: the platform's output `fleet_settings`, checked by the module."
  type = object({
    name                 = string
    defaults             = object({ ami_id = string, instance_type = optional(string), disk_gb = optional(number) })
    subnet_ids           = list(string)
    security_group_id    = string
    allocator_url        = string
    client_package       = optional(string)
    image                = optional(string)
    startup_script       = optional(string, "")
    permissions_boundary = optional(string)
  })
}
