variable "name" {
  description = "Prefix of every name, such as lablink-prod."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name is 3 to 32 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "hostname" {
  description = "What people type and machines enrol at, such as lablink.example.org."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9-]+([.][a-z0-9-]+)+$", var.hostname))
    error_message = "hostname is a name in the DNS, such as lablink.example.org, without https://."
  }
}

variable "public_zone_id" {
  description = "Route 53 zone that gets the hostname's address; null where you enter it elsewhere."
  type        = string
  default     = null
  validation {
    condition     = var.public_zone_id == null || can(regex("^Z[A-Z0-9]+$", var.public_zone_id))
    error_message = "public_zone_id is the id of a zone, such as Z0123456789ABCDEFGHIJ, not its name."
  }
}

variable "vpc_id" {
  description = "The network that the allocator is in."
  type        = string
}

variable "cidr" {
  description = "Addresses of that network: who may come to PostgreSQL in a container."
  type        = string
  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(cidrsubnet(var.cidr, 0, 0) == var.cidr, false)
    error_message = "cidr is an IPv4 network, such as 10.42.0.0/16."
  }
}

variable "subnet" {
  description = "The public subnet that the allocator is in, and that subnet's zone."
  type        = object({ id = string, availability_zone = string })
}

variable "vms_subnet_ids" {
  description = "Private subnets in which the allocator may make machines."
  type        = list(string)
  validation {
    condition     = length(var.vms_subnet_ids) >= 1
    error_message = "Give at least one private subnet."
  }
}

variable "vms_security_group_id" {
  description = "Group that the machines are in."
  type        = string
}

variable "ami_id" {
  description = "Ubuntu 24.04 or newer: what the allocator's containers run on."
  type        = string
  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id is such as ami-0123456789abcdef0."
  }
}

variable "instance_type" {
  description = "Size of the allocator; t3.small serves a hundred machines with the database in a container."
  type        = string
  default     = "t3.small"
  validation {
    condition     = can(regex("^[a-z0-9-]+[.][a-z0-9-]+$", var.instance_type))
    error_message = "instance_type is such as t3.small."
  }
}

variable "data_gb" {
  description = "Volume that outlives the instance, in GB: certificates, passwords, and the database where that is a container."
  type        = number
  default     = 20
  validation {
    condition     = var.data_gb >= 10 && var.data_gb <= 16384
    error_message = "data_gb is between 10 and 16,384."
  }
}

variable "people_cidrs" {
  description = "Where people's browsers are."
  type        = set(string)
  default     = ["0.0.0.0/0"]
  validation {
    condition     = length(var.people_cidrs) >= 1 && alltrue([for cidr in var.people_cidrs : can(cidrnetmask(cidr)) && try(cidrsubnet(cidr, 0, 0) == cidr, false)])
    error_message = "people_cidrs are IPv4 networks such as 192.0.2.0/24."
  }
}

variable "admin_cidrs" {
  description = "Where admins log in from with SSH; nobody can if it is empty."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for cidr in var.admin_cidrs : can(cidrnetmask(cidr)) && try(cidrsubnet(cidr, 0, 0) == cidr, false) && !endswith(cidr, "/0")])
    error_message = "admin_cidrs are IPv4 networks such as 192.0.2.7/32, never the whole internet."
  }
}

variable "ssh_key" {
  description = "Name of the EC2 key pair that admins log in with."
  type        = string
  default     = null
  validation {
    condition     = length(var.admin_cidrs) == 0 || var.ssh_key != null
    error_message = "admin_cidrs need an ssh_key: without one nobody can log in."
  }
}

variable "certificate_secret_arn" {
  description = "Secret with key and certificates of the hostname (PEM); null asks Let's Encrypt, which must reach port 443."
  type        = string
  default     = null
  validation {
    condition     = var.certificate_secret_arn == null || can(regex("^arn:[a-z-]+:secretsmanager:", var.certificate_secret_arn))
    error_message = "certificate_secret_arn is the ARN of a secret in Secrets Manager."
  }
  validation {
    condition     = var.certificate_secret_arn != null || contains(var.people_cidrs, "0.0.0.0/0")
    error_message = "Let's Encrypt comes from anywhere: with narrower people_cidrs, give a certificate_secret_arn."
  }
}

variable "identity_certificate" {
  description = "PEM with which AWS signs instances' identity in this region (RSA, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html): machines then show that signature beside their join token. null asks for the token alone."
  type        = string
  default     = null
  validation {
    condition     = var.identity_certificate == null || can(regex("^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n?$", var.identity_certificate))
    error_message = "identity_certificate is one certificate in PEM, from its BEGIN line to its END line."
  }
}

variable "images" {
  description = "Containers: the allocator (lablink-allocator-aws, which `make image-aws` builds), PostgreSQL where it is one, and the proxy that does TLS."
  type = object({
    allocator = string
    postgres  = optional(string, "docker.io/library/postgres:17")
    proxy     = optional(string, "docker.io/library/caddy:2")
  })
  validation {
    condition     = alltrue([for image in values(var.images) : can(regex("^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", image))])
    error_message = "An image is such as ghcr.io/talmolab/lablink-allocator-aws:1.0, with a tag or a @sha256: digest."
  }
}

variable "database" {
  description = "RDS, as the database module's outputs say; null for PostgreSQL in a container on the allocator."
  type        = object({ host = string, port = number, master_secret_arn = string, kms_key_arn = optional(string), log_group = string })
  default     = null
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

variable "settings" {
  description = "Settings that differ from conf/, beside what Terraform knows itself, such as pool.programs=[python3]."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for line in var.settings : can(regex("^[a-z_]+([.][a-z_]+)*=[^\n]*$", line))])
    error_message = "A setting is KEY=VALUE on one line, such as pool.lease_seconds=14400."
  }
  validation {
    condition     = !anytrue([for line in var.settings : can(regex("^transport(|[.]mode)=", line))])
    error_message = "How machines speak is the variable transport, for their way to the database is opened or closed with it."
  }
}

variable "fleet" {
  description = "What the allocator gives terraform/fleet: backend and variables."
  type        = any
  default     = {}
}

variable "bucket" {
  description = "S3 bucket with the fleet's state (fleet/) and the backups (backups/)."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket is the name of an S3 bucket."
  }
}

variable "topic_arn" {
  description = "SNS topic that the allocator may tell of alarms; null for none."
  type        = string
  default     = null
  validation {
    condition     = var.topic_arn == null || can(regex("^arn:[a-z-]+:sns:", var.topic_arn))
    error_message = "topic_arn is the ARN of an SNS topic."
  }
}
