// Options of AdamW, and gradient clipping as PyTorch defines it. The update itself is the
// device's: Ops::MeanGradients, Scale and AdamW.
//
// reference: torch.optim.AdamW (decoupled weight decay, eps outside the root of
// the corrected second moment), torch.nn.utils.clip_grad_norm_.
#pragma once

namespace tundra {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

// max_norm / (norm + 1e-6), at most 1; 1 when max_norm <= 0 (no clipping).
// NaN norm gives NaN.
double ClipCoefficient(double norm, double max_norm);

}  // namespace tundra
