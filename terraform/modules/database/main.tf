# PostgreSQL as a service: encrypted, backed up, reached with TLS from the security groups of its clients and from nowhere else.

locals {
  family = "postgres${split(".", var.engine_version)[0]}"
  logs   = ["postgresql", "upgrade"]

  # The guide's settings, for the memory that the class has: `lablink db tune` explains each. RDS counts buffers and cache in
  # 8 kB, work memory in kB, the log in MB.
  settings = {
    "password_encryption"          = { value = "scram-sha-256" }
    "authentication_timeout"       = { value = "5" }
    "max_connections"              = { value = tostring(var.max_connections), apply = "pending-reboot" }
    "shared_buffers"               = { value = "{DBInstanceClassMemory/32768}", apply = "pending-reboot" }
    "effective_cache_size"         = { value = "{DBInstanceClassMemory/16384}" }
    "work_mem"                     = { value = "GREATEST({DBInstanceClassMemory/${4096 * var.max_connections}},256)" }
    "maintenance_work_mem"         = { value = "LEAST({DBInstanceClassMemory/16384},2097152)" }
    "wal_buffers"                  = { value = "2048", apply = "pending-reboot" }
    "min_wal_size"                 = { value = "1024" }
    "max_wal_size"                 = { value = "4096" }
    "checkpoint_completion_target" = { value = "0.9" }
    "default_statistics_target"    = { value = "100" }
    "random_page_cost"             = { value = "1.1" }
    "effective_io_concurrency"     = { value = "200" }
    "log_min_duration_statement"   = { value = "1000" }
    "log_parameter_max_length"     = { value = "0" }
    "log_connections"              = { value = "1" }
  }
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_118:Enhanced monitoring is the operating system's; Performance Insights and lablink db activity say what PostgreSQL does.
  #checkov:skip=CKV_AWS_157:Multi-AZ is a variable: a standby doubles the price, and a workshop may prefer a restore.
  #checkov:skip=CKV_AWS_161:Every VM and service has a role with a SCRAM password of its own; IAM tokens would need rds-db:connect on every VM.
  #checkov:skip=CKV_AWS_354:Performance Insights is encrypted with kms_key_arn where one is given.
  #checkov:skip=CKV2_AWS_30:Statements are not logged, since a typed line may hold a code; slow ones are, without their parameters.
  identifier     = var.name
  engine         = "postgres"
  engine_version = var.engine_version
  instance_class = var.instance_class
  multi_az       = var.multi_az

  allocated_storage     = var.storage_gb.first
  max_allocated_storage = var.storage_gb.most
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = var.kms_key_arn

  username                      = "postgres"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = var.kms_key_arn

  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.this.id]
  publicly_accessible    = false
  parameter_group_name   = aws_db_parameter_group.this.name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period   = var.backup_days
  backup_window             = var.backup_window
  maintenance_window        = var.maintenance_window
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = false
  final_snapshot_identifier = "${var.name}-final-${formatdate("YYYYMMDDhhmmss", plantimestamp())}"

  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = local.logs
  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.kms_key_arn

  tags = { Name = var.name }

  # RDS refuses to make a snapshot of a name that is taken: each server's is named after when it was made.
  lifecycle {
    ignore_changes = [final_snapshot_identifier]
  }
  depends_on = [aws_cloudwatch_log_group.this]
}

# RDS would make them by itself, kept for ever.
resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:Who connected when is encrypted with the service's own key.
  #checkov:skip=CKV_AWS_338:A year of connections of short-lived VMs is personal data without a purpose.
  for_each          = toset(local.logs)
  name              = "/aws/rds/instance/${var.name}/${each.key}"
  retention_in_days = var.log_days
}

resource "aws_db_subnet_group" "this" {
  name_prefix = "${var.name}-"
  description = "Where ${var.name} may be"
  subnet_ids  = var.subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name_prefix = "${var.name}-"
  description = "LabLink's settings"
  family      = local.family
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  dynamic "parameter" {
    for_each = local.settings
    content {
      name         = parameter.key
      value        = parameter.value.value
      apply_method = lookup(parameter.value, "apply", "immediate")
    }
  }
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "this" {
  name_prefix = "${var.name}-database-"
  description = "PostgreSQL of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-database" }
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  for_each                     = var.clients
  security_group_id            = aws_security_group.this.id
  description                  = "PostgreSQL from the ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}
