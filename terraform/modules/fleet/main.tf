# Machines that are lent: keyed by name, in private subnets, reached by nobody, each able to read its own join token and no more.

locals {
  # With what the hub needs, so that machines can be moved there and back while they serve.
  package = var.client_package == null ? null : startswith(var.client_package, "https:") ? "lablink[hub] @ ${var.client_package}" : replace(var.client_package, "lablink", "lablink[hub]")

  order = { for index, hostname in sort(keys(var.vms)) : hostname => index }

  tags = {
    for hostname, vm in var.vms : hostname => {
      Name             = "${var.name}-${hostname}"
      lablink          = var.name
      lablink-hostname = hostname
      lablink-pool     = vm.pool
    }
  }

  boot = {
    for hostname in keys(var.vms) : hostname => templatefile("${path.module}/boot.yaml.tftpl", {
      hostname       = hostname
      url            = var.allocator_url
      secret         = "${var.name}/join/${hostname}"
      package        = local.package
      image          = var.image
      startup_script = base64encode(var.startup_script)
    })
  }
}

resource "aws_instance" "this" {
  #checkov:skip=CKV_AWS_126:Detailed monitoring is paid for; the client says how the machine is.
  #checkov:skip=CKV_AWS_135:Every type of today is optimised for EBS by itself, and an older one refuses to be told so.
  for_each             = var.vms
  ami                  = coalesce(each.value.ami_id, var.defaults.ami_id)
  instance_type        = coalesce(each.value.instance_type, var.defaults.instance_type)
  subnet_id            = coalesce(each.value.subnet_id, var.subnet_ids[local.order[each.key] % length(var.subnet_ids)])
  iam_instance_profile = aws_iam_instance_profile.this[each.key].name

  associate_public_ip_address = false
  vpc_security_group_ids      = [var.security_group_id]

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = coalesce(each.value.disk_gb, var.defaults.disk_gb)
  }
  volume_tags = local.tags[each.key]

  user_data_base64 = base64gzip(local.boot[each.key])

  tags = local.tags[each.key]

  # A newer image, type or script is for the next machine of that name; one that runs may be somebody's. Nor is one
  # replaced because somebody has given it an address by hand.
  lifecycle {
    ignore_changes = [ami, associate_public_ip_address, instance_type, subnet_id, user_data_base64]
  }
}

# What is in it, the allocator writes at every invitation: a token is in no state.
resource "aws_secretsmanager_secret" "join" {
  #checkov:skip=CKV2_AWS_57:A join token works once, and the allocator makes the next.
  #checkov:skip=CKV_AWS_149:A token that works once, for minutes, is encrypted with the service's own key.
  for_each                = var.vms
  name                    = "${var.name}/join/${each.key}"
  description             = "Join token of ${each.key}; works once"
  recovery_window_in_days = 0
  tags                    = local.tags[each.key]
}

resource "aws_iam_role" "this" {
  for_each             = var.vms
  name                 = "${var.name}-vm-${each.key}"
  path                 = "/${var.name}/vm/"
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

# Only from the instance that has the name now: whoever was on the one before it may have kept that one's credentials.
resource "aws_iam_role_policy" "this" {
  for_each = var.vms
  name     = "join"
  role     = aws_iam_role.this[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "secretsmanager:GetSecretValue"
      Resource  = aws_secretsmanager_secret.join[each.key].arn
      Condition = { ArnEquals = { "ec2:SourceInstanceARN" = aws_instance.this[each.key].arn } }
    }]
  })
}

resource "aws_iam_instance_profile" "this" {
  for_each = var.vms
  name     = "${var.name}-vm-${each.key}"
  path     = "/${var.name}/vm/"
  role     = aws_iam_role.this[each.key].name
}
