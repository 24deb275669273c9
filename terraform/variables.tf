variable "name" {
  description = "Prefix of every name, such as lablink-prod."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name)) && !strcontains(var.name, "--")
    error_message = "name is 3 to 32 lower-case letters, digits and single hyphens, and begins with a letter."
  }
}

variable "region" {
  description = "Where all of it is."
  type        = string
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is such as eu-central-1."
  }
}

variable "zones" {
  description = "Letters of the region's zones to be in; the allocator is in the first. RDS wants at least two."
  type        = list(string)
  default     = ["a", "b"]
  validation {
    condition     = alltrue([for letter in var.zones : can(regex("^[a-z]$", letter))])
    error_message = "zones are letters, such as [\"a\", \"b\"]."
  }
}

variable "cidr" {
  description = "Addresses of the network."
  type        = string
  default     = "10.42.0.0/16"
}

variable "interface_endpoints" {
  description = "AWS services that machines reach without the internet, such as secretsmanager. Each costs by the hour and zone."
  type        = set(string)
  default     = []
}

variable "hostname" {
  description = "What people type and machines enrol at, such as lablink.example.org."
  type        = string
}

variable "public_zone_id" {
  description = "Route 53 zone that gets the hostname's address; null where you enter the output `public_ip` elsewhere."
  type        = string
  default     = null
}

variable "certificate_secret_arn" {
  description = "Secret with key and certificates of the hostname (PEM); null asks Let's Encrypt."
  type        = string
  default     = null
}

variable "identity_certificate" {
  description = "PEM with which AWS signs instances' identity in this region (RSA, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html): machines then show that signature beside their join token. null asks for the token alone."
  type        = string
  default     = null
}

variable "people_cidrs" {
  description = "Where people's browsers are."
  type        = set(string)
  default     = ["0.0.0.0/0"]
}

variable "admin_cidrs" {
  description = "Where admins log in from with SSH; nobody can if it is empty."
  type        = set(string)
  default     = []
}

variable "ssh_key" {
  description = "Name of the EC2 key pair that admins log in with."
  type        = string
  default     = null
}

variable "bucket" {
  description = "The bucket that terraform/state made."
  type        = string
}

variable "allocator" {
  description = "The allocator's instance and containers; its image at least."
  type = object({
    images        = object({ allocator = string, postgres = optional(string), proxy = optional(string) })
    instance_type = optional(string, "t3.small")
    data_gb       = optional(number, 20)
    ami_id        = optional(string)
  })
}

variable "settings" {
  description = "The allocator's settings that differ from conf/, such as pool.lease_seconds=14400."
  type        = list(string)
  default     = []
}

variable "transport" {
  description = "How machines speak: direct to PostgreSQL, over the hub (then no database port is open to them), or auto: the hub, and PostgreSQL while that is away."
  type        = string
  default     = "direct"
  validation {
    condition     = contains(["direct", "hub", "auto"], var.transport)
    error_message = "transport is direct, hub or auto."
  }
}

variable "machines" {
  description = "What all machines are that say nothing else; how many there are, `lablink fleet` says."
  type = object({
    ami_id         = optional(string)
    instance_type  = optional(string, "t3.large")
    disk_gb        = optional(number, 40)
    client_package = optional(string)
    image          = optional(string)
    startup_script = optional(string, "")
  })
  validation {
    condition     = var.machines.client_package != null || var.machines.image != null || var.machines.ami_id != null
    error_message = "Where does the machines' client come from? Give machines.client_package or machines.image, or an ami_id that has it in /opt/lablink."
  }
}

variable "database" {
  description = "RDS, and how it differs from the database module's defaults; null for PostgreSQL in a container on the allocator."
  type = object({
    engine_version      = optional(string, "17")
    instance_class      = optional(string, "db.t4g.small")
    max_connections     = optional(number, 240)
    storage_gb          = optional(object({ first = optional(number, 20), most = optional(number, 100) }), {})
    multi_az            = optional(bool, false)
    backup_days         = optional(number, 7)
    backup_window       = optional(string, "03:00-04:00")
    maintenance_window  = optional(string, "mon:04:00-mon:05:00")
    deletion_protection = optional(bool, true)
    kms_key_arn         = optional(string)
  })
  default = null
}

variable "topic_arn" {
  description = "SNS topic that the allocator may tell of alarms; null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Put on everything that can have tags, beside deployment = name."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for tag in keys(var.tags) : !startswith(tag, "lablink")])
    error_message = "Tags that begin with lablink say what is the allocator's to change; choose other names."
  }
}
