variable "region" {
  description = "Where the bucket is: where the deployment will be."
  type        = string
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is such as eu-central-1."
  }
}

variable "bucket" {
  description = "Name of the bucket; no two in the world have the same."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket is 3 to 63 lower-case letters, digits, dots and hyphens, such as lablink-prod-7f3a."
  }
}
