variable "name" {
  description = "Prefix of every name, such as lablink-prod."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name)) && !strcontains(var.name, "--")
    error_message = "name is 3 to 32 lower-case letters, digits and single hyphens, and begins with a letter."
  }
}

variable "vpc_id" {
  description = "The network that the database is in."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in at least two zones."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "RDS wants subnets in at least two zones."
  }
}

variable "clients" {
  description = "Security groups that may connect, by what they are: the allocator's and, unless they speak over the hub, the fleet's."
  type        = map(string)
  validation {
    condition     = length(var.clients) >= 1 && alltrue([for name in keys(var.clients) : contains(["allocator", "fleet"], name)])
    error_message = "clients has the key allocator and, unless machines speak over the hub, fleet."
  }
}

variable "engine_version" {
  description = "PostgreSQL's version: 15 to 18, or a minor version of these."
  type        = string
  default     = "17"
  validation {
    condition     = can(regex("^1[5-8]([.][0-9]+)?$", var.engine_version))
    error_message = "LabLink runs on PostgreSQL 15, 16, 17 and 18."
  }
}

variable "instance_class" {
  description = "Size of the server. db.t4g.small serves 100 VMs in direct mode."
  type        = string
  default     = "db.t4g.small"
  validation {
    condition     = can(regex("^db[.][a-z0-9]+[.][a-z0-9]+$", var.instance_class))
    error_message = "An instance class is such as db.t4g.small."
  }
}

variable "max_connections" {
  description = "Connections: one a VM in direct mode, two while it connects again, and 40 for all others (lablink db tune says how many)."
  type        = number
  default     = 240
  validation {
    condition     = var.max_connections >= 100 && var.max_connections <= 5000
    error_message = "max_connections is between 100 and 5,000."
  }
}

variable "storage_gb" {
  description = "Room in GB at first, and the most that it may grow to by itself."
  type        = object({ first = optional(number, 20), most = optional(number, 100) })
  default     = {}
  validation {
    condition     = var.storage_gb.first >= 20 && var.storage_gb.most >= var.storage_gb.first
    error_message = "storage_gb.first is at least 20, and storage_gb.most is no less."
  }
}

variable "multi_az" {
  description = "Keep a standby in another zone; a fail-over takes one to two minutes, which every part of LabLink rides out."
  type        = bool
  default     = false
  nullable    = false
}

variable "backup_days" {
  description = "How many days can be gone back to."
  type        = number
  default     = 7
  validation {
    condition     = var.backup_days >= 7 && var.backup_days <= 35
    error_message = "backup_days is between 7 and 35."
  }
}

variable "backup_window" {
  description = "When RDS takes its snapshot (UTC)."
  type        = string
  default     = "03:00-04:00"
  validation {
    condition     = can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$", var.backup_window))
    error_message = "backup_window is such as 03:00-04:00 (UTC)."
  }
}

variable "maintenance_window" {
  description = "When RDS may patch and restart the server (UTC)."
  type        = string
  default     = "mon:04:00-mon:05:00"
  validation {
    condition     = can(regex("^(mon|tue|wed|thu|fri|sat|sun):([01][0-9]|2[0-3]):[0-5][0-9]-(mon|tue|wed|thu|fri|sat|sun):([01][0-9]|2[0-3]):[0-5][0-9]$", var.maintenance_window))
    error_message = "maintenance_window is such as mon:04:00-mon:05:00 (UTC)."
  }
}

variable "log_days" {
  description = "How many days the server's log is kept in CloudWatch."
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 180, 365], var.log_days)
    error_message = "CloudWatch keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 180 or 365 days."
  }
}

variable "deletion_protection" {
  description = "Refuse to destroy the database. Set it to false, apply, and only then destroy."
  type        = bool
  default     = true
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts storage, snapshots and the master password; null takes the account's own for RDS."
  type        = string
  default     = null
  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key (not of an alias), such as arn:aws:kms:eu-central-1:123456789012:key/…"
  }
}
