variable "name" {
  description = "Prefix of every name, such as lablink-prod."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name is 3 to 32 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "vms" {
  description = "The machines, by hostname. Whatever is not given is as in `defaults`."
  type = map(object({
    pool          = optional(string, "default")
    ami_id        = optional(string)
    instance_type = optional(string)
    subnet_id     = optional(string)
    disk_gb       = optional(number)
  }))
  default = {}
  validation {
    condition     = alltrue([for hostname in keys(var.vms) : length("${var.name}-vm-${hostname}") <= 64])
    error_message = "name and hostname together have at most 60 characters, since AWS allows a role's name 64."
  }
  validation {
    condition     = alltrue([for hostname in keys(var.vms) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", hostname))])
    error_message = "A hostname is up to 63 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen."
  }
  validation {
    condition     = alltrue([for vm in values(var.vms) : vm.ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", vm.ami_id))])
    error_message = "An ami_id is such as ami-0123456789abcdef0."
  }
  validation {
    condition     = alltrue([for vm in values(var.vms) : vm.instance_type == null || can(regex("^[a-z0-9-]+[.][a-z0-9-]+$", vm.instance_type))])
    error_message = "An instance_type is such as g5.xlarge."
  }
  validation {
    condition     = alltrue([for vm in values(var.vms) : vm.disk_gb == null || try(vm.disk_gb >= 8 && vm.disk_gb <= 16384, false)])
    error_message = "disk_gb is between 8 and 16,384."
  }
  validation {
    condition     = alltrue([for vm in values(var.vms) : can(regex("^[a-z0-9][a-z0-9-]{0,62}$", vm.pool))])
    error_message = "A pool is up to 63 lower-case letters, digits and hyphens."
  }
}

variable "defaults" {
  description = "What machines are unless they say otherwise."
  type = object({
    ami_id        = string
    instance_type = optional(string, "t3.large")
    disk_gb       = optional(number, 40)
  })
  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.defaults.ami_id))
    error_message = "defaults.ami_id is such as ami-0123456789abcdef0."
  }
  validation {
    condition     = can(regex("^[a-z0-9-]+[.][a-z0-9-]+$", var.defaults.instance_type))
    error_message = "defaults.instance_type is such as g5.xlarge."
  }
  validation {
    condition     = var.defaults.disk_gb >= 8 && var.defaults.disk_gb <= 16384
    error_message = "defaults.disk_gb is between 8 and 16,384."
  }
}

variable "subnet_ids" {
  description = "Private subnets; machines are dealt out to them in the order of their names."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) >= 1
    error_message = "Give at least one private subnet."
  }
}

variable "security_group_id" {
  description = "Group of the machines, which lets nobody in: the network's `vms_security_group_id`."
  type        = string
}

variable "allocator_url" {
  description = "Where machines enrol."
  type        = string
  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]+)?$", var.allocator_url))
    error_message = "allocator_url is such as https://lablink.example.org: machines send a secret there."
  }
}

variable "client_package" {
  description = "What pip installs as the client: a version, or the address of a wheel with its #sha256=. null where the AMI has it in /opt/lablink, or where `image` does."
  type        = string
  default     = null
  validation {
    condition     = var.client_package == null || can(regex("^(lablink==[0-9][0-9a-z.]*|https://[A-Za-z0-9._~:/?&=%+-]+[.]whl#sha256=[0-9a-f]{64})$", var.client_package))
    error_message = "client_package is such as lablink==1.0, or https://…/lablink-1.0-py3-none-any.whl#sha256=… ."
  }
  validation {
    condition     = var.client_package == null || var.image == null
    error_message = "The client comes as client_package or within image, not as both."
  }
}

variable "image" {
  description = "Container that machines run: the client's image, or one of yours that is made FROM it. null for a machine whose own system people use."
  type        = string
  default     = null
  validation {
    condition     = var.image == null || can(regex("^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image is such as ghcr.io/lab/desktop:1.0, with a tag or a @sha256: digest."
  }
}

variable "startup_script" {
  description = "Run once by root before the client starts, such as the installation of a lab's software. Nothing secret: whoever holds the machine can read it."
  type        = string
  default     = ""
  validation {
    condition     = var.startup_script == "" || startswith(var.startup_script, "#!")
    error_message = "startup_script begins with the program that runs it, such as #!/bin/bash."
  }
  validation {
    condition     = length(base64encode(var.startup_script)) <= 12000
    error_message = "startup_script has at most 9,000 bytes, since user-data has at most 16 kB. Put the rest into the image."
  }
}

variable "permissions_boundary" {
  description = "Policy beyond which no machine's role can go, where the account demands one."
  type        = string
  default     = null
  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", var.permissions_boundary))
    error_message = "permissions_boundary is the ARN of a policy."
  }
}
